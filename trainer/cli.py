"""The command line: ``pfc COMMAND ...``, the same as ``python -m trainer COMMAND ...``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from data_pipeline import DataError
from trainer.agreement import PeerFailedError
from trainer.commands import bench, checkpoint, data, eval, report, train
from trainer.errors import ConfigError, ExitCode
from trainer.non_finite import NonFiniteError
from trainer.world import rank_prefix

COMMANDS = (data, train, eval, report, checkpoint, bench)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 failure, 2 bad input, 75 stopped with a checkpoint."""
    parser = argparse.ArgumentParser(prog="pfc", description="Train face models on millions of identities.")
    parser.add_argument("--version", action="version", version=f"pfc {version('pfc')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    parsed = parser.parse_args(arguments)
    handler: Callable[[argparse.Namespace], int] = parsed.handler
    try:
        return int(handler(parsed))
    except (ConfigError, DataError) as error:
        return _complain(str(error), ExitCode.BAD_INPUT)
    except (PeerFailedError, NonFiniteError) as error:
        return _complain(str(error), ExitCode.FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted; nothing half-done is left", ExitCode.FAILURE)
    except OSError as error:  # disk full, permission denied: the path and the reason are all a user needs
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{error.strerror or error}", ExitCode.FAILURE)


def _complain(message: str, code: ExitCode) -> int:
    print(f"pfc: error: {rank_prefix()}{' '.join(message.split())}", file=sys.stderr, flush=True)
    return code
