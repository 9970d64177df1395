"""``pfc status [NAME]``: what became of submitted runs."""

import argparse
import json
from dataclasses import asdict

from deploy.commands.answer import answering
from deploy.commands.submitted import PLACES, add_places, asked_for, registry_here
from deploy.submit.errors import SubmitError
from deploy.submit.own_options import target_of
from deploy.submit.registry import Entry
from deploy.submit.target import Status


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc status`` to the command line."""
    parser = subparsers.add_parser("status", help="what became of submitted runs")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the run (default: all that were submitted)")
    parser.add_argument("--json", action="store_true", help="print JSON instead")
    add_places(parser)
    parser.set_defaults(handler=answering(run))


def run(arguments: argparse.Namespace) -> int:
    """Ask each run's target and print a line for it."""
    registry = registry_here()
    if arguments.name is not None:
        entry = asked_for(arguments, registry)
        found = [(entry, target_of(entry).status(entry.name))]
    else:
        if any(getattr(arguments, place) is not None for place in PLACES):
            raise SubmitError("which run? pfc status NAME; a place is of one run")
        found = [(entry, _status_or_reason(entry)) for entry in registry.entries()]
    if arguments.json:
        print(json.dumps([asdict(entry) | asdict(status) for entry, status in found], indent=2))
    elif not found:
        print("no run was submitted from here")
    for entry, status in () if arguments.json else found:
        code = "" if status.exit_code is None else f" (exit code {status.exit_code})"
        print(f"{entry.name:24}{entry.target:12}{status.state}{code}{f': {status.detail}' if status.detail else ''}")
    return 0


def _status_or_reason(entry: Entry) -> Status:
    """Of all runs, those whose target does not answer must not hide the others."""
    try:
        return target_of(entry).status(entry.name)
    except SubmitError as error:
        return Status("unknown", str(error))
