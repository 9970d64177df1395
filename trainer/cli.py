"""The command line: ``pfc COMMAND ...``, the same as ``python -m trainer COMMAND ...``."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

OWN_COMMANDS = ("data", "train", "check", "plan", "eval", "export", "report", "study", "checkpoint", "bench", "top")
COMMANDS = dict.fromkeys(OWN_COMMANDS, "trainer")
# Of another package, which stands on its own feet and calls this one as a program: known by name alone.
COMMANDS |= dict.fromkeys(("submit", "status", "logs", "cancel"), "deploy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 failure, 2 bad input, 75 stopped with a checkpoint."""
    parser = argparse.ArgumentParser(prog="pfc", description="Train face models on millions of identities.")
    parser.add_argument("--version", action="version", version=f"pfc {version('pfc')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    arguments = sys.argv[1:] if arguments is None else arguments
    # Of a known command, its own module alone: starting again after a failure is made of imports.
    for command in arguments[:1] if arguments and arguments[0] in COMMANDS else COMMANDS:
        importlib.import_module(f"{COMMANDS[command]}.commands.{command}").add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    handler: Callable[[argparse.Namespace], int] = parsed.handler
    try:
        return int(handler(parsed))
    except (Exception, KeyboardInterrupt) as error:
        from trainer.last_line import last_line  # torch comes with it: seconds that what needs none is spared

        code = last_line(error)
        if code is None:
            raise
        return code
