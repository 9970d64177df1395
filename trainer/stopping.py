"""Stop on request: SIGTERM or SIGINT asks, the run finishes its step, saves, and leaves with exit code 75."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # USR1: Slurm's --signal warning before the time limit


class StopRequest:
    """A flag that a signal raises; ranks agree on it once per step."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal_name is not None

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch the stop signals within the block; the former handlers are put back after it."""
    request = StopRequest()
    former = {number: signal.signal(number, request._raise_flag) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
