"""``pfc submit TARGET RUN.toml``: send a run to this machine's background, Docker, Kubernetes or Slurm."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from deploy.commands.answer import answering
from deploy.submit.assemble import assemble
from deploy.submit.environment import state_folder
from deploy.submit.interruption import interruptible
from deploy.submit.options import add_options
from deploy.submit.registry import Registry
from deploy.submit.sending import send
from deploy.submit.targets import SUMMARIES, load_target, target_names

DESCRIPTION = """\
Send a run to where it will be trained. Its configuration is checked first, as pfc train would; --dry-run prints what
would be sent, and sends nothing. Afterwards: pfc status NAME, pfc logs NAME, pfc cancel NAME."""


class _TargetParser(argparse.ArgumentParser):
    """Of one target, whose module comes when its options are asked for: others may need packages that are not here."""

    target: str | None = None
    _is_complete = False

    def parse_known_args(  # type: ignore[override]  # typeshed's overloads are for namespaces of other types
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        if self.target is not None and not self._is_complete:
            self._is_complete = True
            load_target(self.target).add_arguments(self)
        return super().parse_known_args(args, namespace)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``pfc submit`` and its targets to the command line."""
    parser = subparsers.add_parser(
        "submit",
        help="send a run to this machine's background, Docker, Kubernetes or Slurm",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    targets = parser.add_subparsers(required=True, metavar="TARGET", parser_class=_TargetParser)
    for name in target_names():
        of_target = targets.add_parser(name, help=SUMMARIES[name], description=f"Send a run to {SUMMARIES[name]}.")
        of_target.target = name
        add_options(of_target)
        of_target.set_defaults(handler=answering(run), target=name)


def run(arguments: argparse.Namespace) -> int:
    """Check, then send or show."""
    target = load_target(arguments.target).from_arguments(arguments)
    job = assemble(arguments.target, arguments)
    target.check(job)
    if arguments.dry_run:
        sys.stdout.write(target.render(job))
        return 0
    with interruptible():
        print(send(target, arguments.target, job, arguments, Registry(state_folder())))
    print(f"pfc status {job.name}; pfc logs {job.name} --follow; pfc cancel {job.name}")
    return 0
