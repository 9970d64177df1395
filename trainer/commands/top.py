"""``pfc top``: a live table of a run's ranks at the terminal, from their metrics."""

import argparse
import asyncio
import math
import os
import sys
from pathlib import Path

from trainer.errors import ConfigError, ExitCode

TIMEOUT_SECONDS = 2.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc top`` to the command line."""
    parser = subparsers.add_parser(
        "top",
        help="a live table of a run's ranks, from their metrics",
        description="Show the ranks of running trainings: state, speed, phases, loss, checkpoints. q leaves.",
    )
    parser.add_argument(
        "places",
        nargs="*",
        metavar="RUN.toml|RUN_DIR|HOST:PORT",
        help="a run on this machine, or a machine's first metrics port (the ports after it are tried, too)",
    )
    parser.add_argument("--targets", type=Path, metavar="FILE", help="a Prometheus file_sd file in JSON")
    parser.add_argument("--interval", type=float, default=2.0, metavar="SECONDS", help="between refreshes (default 2)")
    parser.add_argument("--once", action="store_true", help="print the table once, as plain text, and leave")
    parser.set_defaults(handler=run)


def run(args: argparse.Namespace) -> int:
    """Show the table until told to leave."""
    if not (math.isfinite(args.interval) and 0.1 <= args.interval <= 3600):
        raise ConfigError(f"--interval {args.interval:g}: give seconds between 0.1 and 3600; 2 is usual")
    from trainer.top.endpoints import find_sources  # these and what they need only for this command
    from trainer.top.poll import Poller
    from trainer.top.watch import watch

    poller = Poller(find_sources(args.places, args.targets), timeout_seconds=TIMEOUT_SECONDS)
    try:
        asyncio.run(watch(poller, interval_seconds=args.interval, once=args.once))
    except BrokenPipeError:  # the reader of our output has seen enough; Python would complain once more at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.DONE
