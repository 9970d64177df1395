"""``pfc study noise RUN.toml --output DIR``: losses against wrong labels, on the same data, seeds and budget."""

import argparse
import sys
from pathlib import Path
from typing import Any

from trainer.commands.overrides import add_overrides
from trainer.complaint import complain
from trainer.config import load_config
from trainer.errors import ConfigError, ExitCode
from trainer.stopping import stop_on_signals
from trainer.study.candidates import LOSSES
from trainer.study.errors import StudyError
from trainer.world import launched_place

DESCRIPTION = """\
Train every loss on RUN.toml's data as it is and with shares of wrong labels, for every seed, each in a process of its
own; judge all by the first of evaluation.pairs, which stay clean; draw accuracy against noise with 95% intervals
(DIR/noise.png, results.json, table.md, report.html). Run again, it goes on: what is trained is not trained again."""


def add_parser(subparsers: Any) -> None:
    """Add ``study`` to the command line."""
    parser = subparsers.add_parser("study", help="experiments made of many trainings")
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    noise = kinds.add_parser(
        "noise",
        help="how losses stand wrong labels",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    noise.add_argument("config", type=Path, metavar="RUN.toml", help="data, backbone, schedule and budget of all runs")
    add_overrides(noise)
    noise.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the study")
    noise.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES), help="default: all four")
    noise.add_argument(
        "--closed-set", type=float, nargs="*", default=[0.2, 0.4], metavar="SHARE",
        help="of images with another's identity (default: 0.2 0.4; nothing: none)",
    )  # fmt: skip
    noise.add_argument(
        "--open-set", type=float, nargs="*", default=None, metavar="SHARE",
        help="of images of people outside (default: 0.2 0.4 where --distractors are given)",
    )  # fmt: skip
    noise.add_argument("--distractors", type=Path, metavar="PATH", help="data set of people outside, for --open-set")
    noise.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    noise.add_argument(
        "--candidates", type=Path, metavar="FILE.toml", help="settings to choose from, as many for each loss"
    )
    noise.add_argument("--tuning-pairs", type=Path, metavar="FILE.bin", help="by which candidates are chosen")
    noise.add_argument("--tuning-seed", type=int, default=1000, metavar="N", help="of those runs (default: 1000)")
    noise.add_argument(
        "--run-minutes", type=float, default=24 * 60.0, metavar="M", help="longest training (default: a day)"
    )
    noise.set_defaults(handler=_noise)


def _noise(arguments: argparse.Namespace) -> ExitCode:
    from trainer.study.noise_study import NoiseStudy, Request
    from trainer.study.written import write_study

    if launched_place()[1] > 1:
        raise ConfigError("pfc study starts its trainings itself, one after the other: run it without a launcher")
    for name, values in (("--losses", arguments.losses), ("--seeds", arguments.seeds)):
        if len(set(values)) != len(values):
            raise ConfigError(f"{name} names {max(values, key=values.count)} twice: once is enough")
    if min(arguments.seeds) < 0 or not arguments.run_minutes > 0:
        raise ConfigError("--seeds and --run-minutes: give seeds from 0 on, and a time above 0")
    opened = arguments.open_set
    if opened is None:
        opened = [0.2, 0.4] if arguments.distractors else []
    request = Request(
        config=load_config(arguments.config, arguments.overrides), output=arguments.output.absolute(),
        losses=arguments.losses, closed=arguments.closed_set, opened=opened, distractors=arguments.distractors,
        seeds=arguments.seeds, candidates=arguments.candidates, tuning_pairs=arguments.tuning_pairs,
        tuning_seed=arguments.tuning_seed, run_seconds=60 * arguments.run_minutes,
    )  # fmt: skip
    with stop_on_signals() as stop:
        study = NoiseStudy(
            request, told=lambda line: print(line, file=sys.stderr, flush=True), stopped=lambda: stop.asked
        )
        try:
            findings = study.run()
        except StudyError as error:
            return ExitCode(complain(str(error), error.code))
    print(write_study(request.output, findings))
    return ExitCode.DONE
