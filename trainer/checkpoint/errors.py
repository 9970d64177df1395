"""A checkpoint that cannot be written."""

import errno
from collections.abc import Sequence

ADVICE = "the checkpoint is not written, earlier ones are intact; make room and run the same command again"
REASONS = ("disk_full", "no_permission", "missing_folder", "other")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)

Failure = tuple[int | None, str, str]  # errno, what the system says, where


class CheckpointWriteError(OSError):
    """A checkpoint could not be written (disk full, no permission); earlier ones are untouched.

    problem: what the system says, without the advice for a run that ends by it.
    """

    problem: str

    @property
    def reason(self) -> str:
        """One of REASONS, for a metric's label."""
        for reason, numbers in zip(REASONS, (_DISK_FULL, _NO_PERMISSION, _MISSING), strict=False):
            if self.errno in numbers:
                return reason
        return "other"


def failure_of(error: OSError, where: str) -> Failure:
    """What other ranks need to know; a failed write itself names no file: ``where`` does then."""
    return error.errno, error.strerror or str(error), str(error.filename or where)


def write_error(failures: Sequence[Failure]) -> CheckpointWriteError:
    """The first of the ranks' failures, with the way out."""
    number, text, where = failures[0]
    error = CheckpointWriteError(number, f"{text}: {ADVICE}", where)
    error.problem = text
    return error
