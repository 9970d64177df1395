"""``pfc cancel NAME``: have a submitted run write a checkpoint and end."""

import argparse
from dataclasses import replace
from datetime import UTC, datetime

from deploy.commands.answer import answering
from deploy.submit.environment import state_folder
from deploy.submit.own_options import target_of
from deploy.submit.registry import Registry


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc cancel`` to the command line."""
    parser = subparsers.add_parser(
        "cancel",
        help="have a submitted run write a checkpoint and end",
        description="Ask a run to stop: all its ranks write a checkpoint and end with code 75. Asked twice, at once.",
    )
    parser.add_argument("name", metavar="NAME", help="of the run")
    parser.set_defaults(handler=answering(run))


def run(arguments: argparse.Namespace) -> int:
    """Ask, and note that it was asked."""
    registry = Registry(state_folder())
    entry = registry.get(arguments.name)
    print(target_of(entry).cancel(entry.name))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    registry.write(replace(entry, cancelled=[*entry.cancelled, now]))
    return 0
