"""``pfc logs NAME``: what a submitted run has printed."""

import argparse
import sys

from deploy.commands.answer import answering
from deploy.commands.submitted import add_places, asked_for, is_registered, registry_here
from deploy.submit.errors import SubmitError
from deploy.submit.own_options import target_of
from deploy.submit.registry import Entry

STOPPED = 75
DESCRIPTION = """\
Print what the ranks of a submitted run have printed. With --follow go on until the run is over, through its restarts,
and end with its exit code: 0 done, 1 failed, 2 bad input, 75 stopped with a checkpoint."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc logs`` to the command line."""
    parser = subparsers.add_parser(
        "logs",
        help="what a submitted run has printed",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="of the run")
    parser.add_argument("--follow", action="store_true", help="go on until the run is over; its exit code is mine")
    parser.add_argument("--rank", type=int, metavar="R", help="only what was printed where rank R is")
    add_places(parser)
    parser.set_defaults(handler=answering(run))


def run(arguments: argparse.Namespace) -> int:
    """Print the lines."""
    entry = asked_for(arguments, registry_here())
    ranks = entry.nodes * entry.ranks_per_node
    if arguments.rank is not None and (arguments.rank < 0 or (is_registered(entry) and arguments.rank >= ranks)):
        raise SubmitError(f"--rank {arguments.rank}: '{entry.name}' has ranks 0 to {ranks - 1}")
    try:
        for line in target_of(entry).logs(entry.name, follow=arguments.follow, rank=arguments.rank):
            print(line, flush=arguments.follow)
        return _outcome(entry) if arguments.follow else 0
    except KeyboardInterrupt:
        if not arguments.follow:
            raise
        return 0


def _outcome(entry: Entry) -> int:
    """Of a run that is over: a line on it, and its exit code."""
    status = target_of(entry).status(entry.name)
    code, state = status.exit_code, status.state
    if code is None:  # gone, and with it what it ended with
        noted = registry_here().find(entry.name)
        was_cancelled = state == "cancelled" or (noted is not None and bool(noted.cancelled))
        code, state = (STOPPED, "cancelled") if was_cancelled else (1, state)
    told = f": {status.detail}" if status.detail else ""
    print(f"{entry.name}: {state} (exit code {code}){told}", file=sys.stderr)
    return code
