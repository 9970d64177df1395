"""``pfc bench plan``: what ``pfc plan`` says of runs on this machine, against real ones."""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError, ExitCode

DESCRIPTION = """\
Measures this machine as pfc plan --calibrate does (or reads --calibration FILE), then runs real short trainings on
drawn faces and prints what pfc plan says of each beside what it took: mean seconds of a step, and the largest
resident size of rank 0. Two cores take about six minutes."""


def add_parser(kinds: Any) -> None:
    """Add ``bench plan`` to the command line."""
    parser = kinds.add_parser(
        "plan",
        help="what pfc plan says of runs on this machine, against real ones",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="measured before; default: measure now")
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="measured of each run, default 8")
    parser.add_argument("--most", type=int, metavar="N", help="only the first N sizes")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where runs go meanwhile; default: the temporary one"
    )
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="of rank 0 over its threads, in place of the wall clock's, for both: where others work, too",
    )
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    from trainer.bench.plan_bench import bench_plan
    from trainer.bench.plan_problem import SIZES, format_compared
    from trainer.plan.calibration import calibrate, read_calibration
    from trainer.plan.local_ranks import terminated_as_interrupted
    from trainer.plan.short_training import UNTOLD

    if arguments.steps < UNTOLD:
        raise ConfigError(f"--steps {arguments.steps}: at least {UNTOLD}, so that there is a line of them")
    if arguments.most is not None and arguments.most < 1:
        raise ConfigError(f"--most {arguments.most}: at least 1")
    if arguments.folder is not None and not arguments.folder.is_dir():
        raise ConfigError(f"--folder {arguments.folder}: no such folder; make it first")
    known = None if arguments.calibration is None else read_calibration(arguments.calibration)
    with terminated_as_interrupted(), tempfile.TemporaryDirectory(prefix="pfc-bench-", dir=arguments.folder) as name:
        folder = Path(name)
        cores = len(os.sched_getaffinity(0))
        calibration = (
            calibrate(folder / "calibration.json", cores, processor_time=arguments.processor_time)
            if known is None
            else known
        )
        found = []
        sizes = [size for size in SIZES if size.ranks <= cores][: arguments.most]
        for compared in bench_plan(
            sizes, calibration, folder, steps=arguments.steps, processor_time=arguments.processor_time
        ):
            found.append(compared)
            print(f"{len(found)} of {len(sizes)}", file=sys.stderr, flush=True)
        print(format_compared(found))
    return ExitCode.DONE
