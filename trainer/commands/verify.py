"""``pfc data verify``: find every bad record of a data set."""

import argparse
import os
from pathlib import Path
from typing import TypeAlias

from tqdm import tqdm

from data_pipeline.summary import find_records
from data_pipeline.verify import verify
from data_pipeline.verify_report import describe_report
from trainer.errors import ConfigError, ExitCode

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def run(args: argparse.Namespace) -> int:
    """Verify, print what was found, write the report; 0 where all is good, else 1."""
    paths = [record for path in args.path for record in find_records(path)]
    # A report is renamed into its place, which must not replace a device or a folder.
    if args.report is not None and (
        not args.report.parent.is_dir() or (args.report.exists() and not args.report.is_file())
    ):
        raise ConfigError(f"--report {args.report}: name a file in a folder that exists")
    total = sum(path.stat().st_size for path in paths)
    with tqdm(total=total, desc="verifying", unit="B", unit_scale=True, disable=None) as bar:
        report = verify(paths, workers=args.workers, image_size=args.image_size, progress=bar.update)
    if args.report is not None:
        report.write(args.report)
    print(describe_report(report))
    if args.report is not None:
        print(f"{'report':20}{args.report}")
    return ExitCode.FAILURE if report.num_bad else ExitCode.DONE


def add_parser(commands: _Subparsers) -> None:
    """Add the subcommand to ``pfc data``."""
    parser = commands.add_parser(
        "verify",
        help="find every bad record: framing, index, labels, images",
        description="Read every byte of every shard, decode every image and compare with the index. Exit code 0: all "
        "good; 1: bad records were found; 2: nothing could be checked.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, nargs="+", help="a .rec file or a folder of them")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", metavar="N", type=int, default=cores, help="processes (default: one a core)")
    parser.add_argument("--report", metavar="FILE", type=Path, help="JSON to write: every bad record and the counts")
    parser.add_argument("--image-size", metavar="PIXELS", type=int, help="height and width that all must have")
    parser.set_defaults(handler=run)
