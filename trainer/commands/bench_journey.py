"""``pfc bench journey``: data, training, death, continuation and evaluation at one size, in one table."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from trainer.bench.journey_problem import JourneyEffort
from trainer.config import Config, load_config
from trainer.errors import ConfigError, ExitCode
from trainer.plan.local_ranks import terminated_as_interrupted
from trainer.world import launched_place

DESCRIPTION = """\
Does what a user does, by the same commands: draws a data set of simple patterns into data.records (unless that very one
is there), trains RUN.toml on several ranks, kills all of them with SIGKILL some steps after a checkpoint is whole,
continues on another number of ranks, evaluates on pairs of unseen identities, writes the report; and tells how long
each took, how much memory and disk, what a step is made of and what was learned. The run starts anew: run.output must
be empty. Fails (exit code 1) where a command fails, or the continued run does not go on at its newest checkpoint or
loses or repeats a step."""


def add_parser(kinds: Any) -> None:
    """Add ``bench journey`` to the command line."""
    parser = kinds.add_parser(
        "journey",
        help="draw, train, kill, continue on another number of ranks, evaluate: all of it at one size",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("config", type=Path, metavar="RUN.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of pfc train; repeatable")
    parser.add_argument("--identities", **number, default=1_000_000, help="to train on, default 1000000")
    parser.add_argument("--images-per-identity", **number, default=2, help="default 2")
    parser.add_argument("--unseen-identities", **number, default=2000, help="to verify on, default 2000")
    parser.add_argument("--pairs", **number, default=2000, help="of them, default 2000")
    parser.add_argument("--ranks", **number, default=2, help="until the kill, default 2")
    parser.add_argument("--resume-ranks", **number, default=1, help="afterwards, default 1")
    parser.add_argument(
        "--kill-after", **number, help="after the first whole checkpoint of this step or later; default: half of them"
    )
    parser.add_argument(
        "--deadline-minutes", type=float, default=45.0, metavar="M", help="nothing runs longer than that, default 45"
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write the table there (Markdown)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    end = time.monotonic() + 60.0 * arguments.deadline_minutes
    config = load_config(arguments.config, arguments.set)
    effort = _effort(arguments, config)
    _check(arguments, config, effort)
    from data_pipeline.pending_file import write_file
    from trainer.bench.journey_bench import bench_journey
    from trainer.bench.journey_table import format_journey, write_journey

    with terminated_as_interrupted():
        journey = bench_journey(
            config, arguments.config, arguments.set, effort, end=end,
            say=lambda text: print(f"journey: {text}", file=sys.stderr, flush=True),
        )  # fmt: skip
    table = format_journey(journey)
    print(table)
    if arguments.table is not None:
        write_file(arguments.table, table + "\n")
    if arguments.json is not None:
        write_journey(arguments.json, journey)
    return ExitCode.DONE


def _effort(arguments: argparse.Namespace, config: Config) -> JourneyEffort:
    if config.train.steps is None:
        raise ConfigError("train.steps: bench journey wants a number of steps, not epochs")
    affinity = getattr(os, "sched_getaffinity", None)
    return JourneyEffort(
        identities=arguments.identities,
        images_per_identity=arguments.images_per_identity,
        unseen_identities=arguments.unseen_identities,
        pairs=arguments.pairs,
        ranks=arguments.ranks,
        resume_ranks=arguments.resume_ranks,
        kill_after=config.train.steps // 2 if arguments.kill_after is None else arguments.kill_after,
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
    )


def _check(arguments: argparse.Namespace, config: Config, effort: JourneyEffort) -> None:
    if launched_place()[1] > 1:
        raise ConfigError("bench journey starts its ranks itself: call it without a launcher, with --ranks N")
    if not Path("/proc/self/smaps_rollup").exists():
        raise ConfigError("bench journey reads memory from /proc, which this system does not have")
    for name in ("identities", "images_per_identity", "unseen_identities", "pairs", "ranks", "resume_ranks"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(arguments, name)}")
    if not arguments.deadline_minutes > 0:
        raise ConfigError(f"--deadline-minutes {arguments.deadline_minutes}: give some")
    if config.data.batch_size * effort.ranks % effort.resume_ranks:
        raise ConfigError(
            f"--resume-ranks {effort.resume_ranks}: the global batch of {config.data.batch_size * effort.ranks} must "
            "be a multiple of it"
        )
    every, steps = config.checkpoint.every_steps, config.train.steps
    assert steps is not None, "there is an effort"
    first = -(-max(effort.kill_after, 1) // every) * every if every else steps
    if effort.kill_after < 1 or first >= steps:
        raise ConfigError(
            f"--kill-after {effort.kill_after}: no checkpoint at or after it and before step {steps}, the last one "
            f"(checkpoint.every_steps = {every})"
        )
    output = config.run.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"run.output {output}: a journey begins anew; delete it, or name another folder")
    for path in (arguments.table, arguments.json):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: no such folder; make it first")
