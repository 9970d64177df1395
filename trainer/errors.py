"""Exit codes of the contract and the errors that stand for a bad configuration and for another rank's failure."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a process of this project returns to its launcher."""

    DONE = 0
    FAILURE = 1
    BAD_INPUT = 2
    STOPPED = 75  # stopped on request, nothing is lost: run the same command again


class ConfigError(ValueError):
    """A configuration, path or option that a user gave cannot be used.

    The message is one line: what is wrong, where, and the way out. Commands turn it into exit code 2.
    """


class PeerFailedError(RuntimeError):
    """Another rank failed in what all ranks do together.

    ``code``: what this process exits with, so that bad input on one rank is bad input of the whole run; None where
    nobody has said yet what happened.
    """

    def __init__(self, message: str, code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.code = code
