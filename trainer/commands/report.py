"""``pfc report RUN_DIR``: one self-contained HTML page about a run."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from trainer.errors import ExitCode


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc report`` to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="write an HTML page with curves, ROC and the worst pairs of a run",
        description="Write one self-contained HTML page about a run, finished or not, and print its path.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="folder of the run (it holds run.toml)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="where to write (default: RUN_DIR/report.html)")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from trainer.report.page import write_report  # matplotlib is slow to import: other commands do without it

    print(write_report(args.run_dir, args.output, now=datetime.now(UTC)))
    return ExitCode.DONE
