"""What ended a run, in a form that the ranks can tell each other, and whose failure an error is."""

import json
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist

from data_pipeline import DataError
from trainer.errors import ConfigError, ExitCode, PeerFailedError

LONGEST_TEXT = 1000  # characters
FROM_OTHERS = ("gloo/", "NCCL", "nccl", "Connection closed by peer", "Connection reset by peer", "Broken pipe")


@dataclass(frozen=True)
class Failure:
    """One line that says who failed, where and why, and the exit code of every rank that ends because of it.

    absent: how many ranks cannot hear of it any more.
    """

    text: str
    code: ExitCode = ExitCode.FAILURE
    absent: int = 0

    def to_json(self) -> str:
        """As the ranks pass it on."""
        return json.dumps(asdict(self) | {"text": self.text[:LONGEST_TEXT]})

    @staticmethod
    def from_json(content: bytes) -> "Failure":
        """The counterpart; what is not one of these failures is one of unknown reason."""
        try:
            found = json.loads(content)
            return Failure(str(found["text"])[:LONGEST_TEXT], ExitCode(found["code"]), int(found["absent"]))
        except (ValueError, KeyError, TypeError):
            return Failure("another process failed, it is not known how")

    @property
    def advice(self) -> str:
        """What to do about it, where that is the same for all failures of its kind."""
        return {
            ExitCode.FAILURE: "; run the same command again: it continues from the newest checkpoint",
            ExitCode.STOPPED: "; run the same command again",
        }.get(self.code, "")

    def as_error(self) -> PeerFailedError:
        """To be raised by a rank that did not fail itself."""
        return PeerFailedError(self.text + self.advice, self.code)


def is_of_others(error: BaseException) -> bool:
    """Whether ``error`` only says that a rank could not be reached, or failed: not whose fault it is."""
    if isinstance(error, PeerFailedError):
        return error.code is None
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in FROM_OTHERS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the GPU or of the host."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def reason(error: BaseException) -> str:
    """One line for people."""
    if is_out_of_memory(error):
        return f"out of memory: lower data.batch_size or use more ranks ({first_line(error)})"
    plain = isinstance(error, ConfigError | DataError | PeerFailedError)
    return first_line(error) if plain else f"{type(error).__name__}: {first_line(error)}"


def exit_code(error: BaseException) -> ExitCode:
    """What a process that ends by ``error`` returns."""
    if isinstance(error, PeerFailedError):
        return ExitCode.FAILURE if error.code is None else error.code
    return ExitCode.BAD_INPUT if isinstance(error, ConfigError | DataError) else ExitCode.FAILURE


def first_line(error: BaseException) -> str:
    """The beginning of its message."""
    lines = str(error).strip().splitlines()
    return lines[0][:LONGEST_TEXT] if lines else ""
