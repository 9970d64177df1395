"""``pfc logs NAME``: what a submitted run has printed."""

import argparse

from deploy.commands.answer import answering
from deploy.submit.environment import state_folder
from deploy.submit.errors import SubmitError
from deploy.submit.own_options import target_of
from deploy.submit.registry import Registry


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc logs`` to the command line."""
    parser = subparsers.add_parser("logs", help="what a submitted run has printed")
    parser.add_argument("name", metavar="NAME", help="of the run")
    parser.add_argument("--follow", action="store_true", help="go on until the run ends")
    parser.add_argument("--rank", type=int, metavar="R", help="only what was printed where rank R is")
    parser.set_defaults(handler=answering(run))


def run(arguments: argparse.Namespace) -> int:
    """Print the lines."""
    entry = Registry(state_folder()).get(arguments.name)
    ranks = entry.nodes * entry.ranks_per_node
    if arguments.rank is not None and not 0 <= arguments.rank < ranks:
        raise SubmitError(f"--rank {arguments.rank}: '{entry.name}' has ranks 0 to {ranks - 1}")
    try:
        for line in target_of(entry).logs(entry.name, follow=arguments.follow, rank=arguments.rank):
            print(line, flush=arguments.follow)
    except KeyboardInterrupt:
        if not arguments.follow:
            raise
    return 0
