"""Exit codes of the contract and the error that stands for a bad configuration."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a process of this project returns to its launcher."""

    DONE = 0
    FAILURE = 1
    BAD_INPUT = 2
    STOPPED = 75  # stopped on request with a checkpoint written: run the same command again


class ConfigError(ValueError):
    """A configuration, path or option that a user gave cannot be used.

    The message is one line: what is wrong, where, and the way out. Commands turn it into exit code 2.
    """
