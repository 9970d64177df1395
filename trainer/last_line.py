"""What a command says of the error that ended it."""

import errno

from data_pipeline import DataError
from trainer.complaint import complain
from trainer.errors import ConfigError, ExitCode, PeerFailedError
from trainer.failure import exit_code, is_out_of_memory, reason
from trainer.non_finite import NonFiniteError


def last_line(error: BaseException) -> ExitCode | None:
    """Say it in one line; the exit code, or None for what nobody expected: its traceback tells more."""
    if isinstance(error, ConfigError | DataError | PeerFailedError | NonFiniteError):
        return complain(str(error), exit_code(error))
    if isinstance(error, KeyboardInterrupt):
        return complain("interrupted; nothing half-done is left", ExitCode.FAILURE)
    if isinstance(error, OSError):  # disk full, permission denied: the path and the reason are all a user needs
        where = f"{error.filename}: " if error.filename else ""
        # What is more than an OSError knows a better way out.
        full = type(error) is OSError and error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; make room and run the same command again" if full else ""
        return complain(f"{where}{error.strerror or error}{advice}", ExitCode.FAILURE)
    return complain(reason(error), ExitCode.FAILURE) if is_out_of_memory(error) else None
