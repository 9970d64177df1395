"""What every command here does with an error: one line, and the exit code it asks for."""

import argparse
import os
import sys
from collections.abc import Callable

from deploy.submit.errors import SubmitError

Handler = Callable[[argparse.Namespace], int]


def answering(handler: Handler) -> Handler:
    """``handler``, whose SubmitError becomes a line; whoever reads its output may have seen enough, too."""

    def answered(arguments: argparse.Namespace) -> int:
        try:
            code = handler(arguments)
            sys.stdout.flush()
            return code
        except SubmitError as error:
            print(f"pfc: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            return error.code
        except KeyboardInterrupt:
            print("pfc: error: interrupted; nothing half-done is left", file=sys.stderr, flush=True)
            return 1
        except BrokenPipeError:  # Python would complain once more at its exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return answered
