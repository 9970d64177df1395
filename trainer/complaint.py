"""The one line that a command says when it fails, or stops."""

import sys

from trainer.errors import ExitCode
from trainer.world import rank_prefix


def complain(message: str, code: ExitCode) -> ExitCode:
    """``pfc: error: rank 3: MESSAGE``, on one line of the standard error output; returns ``code``.

    A stop on request is no error, and not called one.
    """
    kind = "" if code == ExitCode.STOPPED else "error: "
    print(f"pfc: {kind}{rank_prefix()}{' '.join(message.split())}", file=sys.stderr, flush=True)
    return code
