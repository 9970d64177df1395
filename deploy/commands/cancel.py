"""``pfc cancel NAME``: have a submitted run write a checkpoint and end."""

import argparse
from dataclasses import replace
from datetime import UTC, datetime

from deploy.commands.answer import answering
from deploy.commands.submitted import add_places, asked_for, registry_here
from deploy.submit.own_options import target_of


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc cancel`` to the command line."""
    parser = subparsers.add_parser(
        "cancel",
        help="have a submitted run write a checkpoint and end",
        description="Ask a run to stop: all its ranks write a checkpoint and end with code 75. Asked twice, at once.",
    )
    parser.add_argument("name", metavar="NAME", help="of the run")
    add_places(parser)
    parser.set_defaults(handler=answering(run))


def run(arguments: argparse.Namespace) -> int:
    """Ask, and note that it was asked."""
    registry = registry_here()
    entry = asked_for(arguments, registry)
    print(target_of(entry).cancel(entry.name))
    noted = registry.find(entry.name)
    if noted is not None and noted.options == entry.options:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        registry.write(replace(noted, cancelled=[*noted.cancelled, now]))
    return 0
