"""The command line: ``pfc COMMAND ...``, the same as ``python -m trainer COMMAND ...``."""

import argparse
import errno
import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from data_pipeline import DataError
from trainer.complaint import complain
from trainer.errors import ConfigError, ExitCode, PeerFailedError
from trainer.failure import exit_code, is_out_of_memory, reason
from trainer.non_finite import NonFiniteError

COMMANDS = dict.fromkeys(("data", "train", "check", "eval", "report", "checkpoint", "bench", "top", "study"), "trainer")
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
    except (ConfigError, DataError, PeerFailedError, NonFiniteError) as error:
        return complain(str(error), exit_code(error))
    except KeyboardInterrupt:
        return complain("interrupted; nothing half-done is left", ExitCode.FAILURE)
    except OSError as error:  # disk full, permission denied: the path and the reason are all a user needs
        where = f"{error.filename}: " if error.filename else ""
        # What is more than an OSError knows a better way out.
        full = type(error) is OSError and error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; make room and run the same command again" if full else ""
        return complain(f"{where}{error.strerror or error}{advice}", ExitCode.FAILURE)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return complain(reason(error), ExitCode.FAILURE)
