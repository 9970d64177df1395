"""``pfc train RUN.toml``: train, or continue, one run."""

import argparse
import faulthandler
import sys
from pathlib import Path
from typing import Any

from trainer.commands.overrides import add_overrides
from trainer.config import load_config
from trainer.errors import ExitCode
from trainer.training import train

EXIT_SECONDS = 20.0


def add_parser(subparsers: Any) -> None:
    """Add ``train`` to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a face model as a configuration says",
        description="Train as RUN.toml says. Started again with the same configuration, a run continues from its "
        "newest checkpoint. On several ranks: torchrun, or python -m deploy.launch.agent, "
        "--nproc-per-node N -m trainer train RUN.toml",
    )
    parser.add_argument("config", type=Path, metavar="RUN.toml", help="run configuration")
    add_overrides(parser)
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    try:
        return train(load_config(arguments.config, arguments.overrides))
    finally:
        # Whatever library's thread may keep the interpreter from ending: the process ends, and says which.
        if sys.stderr is sys.__stderr__:  # else somebody else's process, who called this as a function
            faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True)
