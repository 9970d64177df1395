"""Stop on request: a signal asks, the run finishes its step, saves, and leaves with exit code 75. A second one ends it.

Python runs signal handlers in the main thread, and there only between two of its instructions: never while a collective
waits for another rank. So a thread of its own listens, to which the interpreter writes each signal's number at once.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from trainer.complaint import complain
from trainer.errors import ExitCode

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # USR1: Slurm's --signal warning before the time limit
URGENT = (signal.SIGTERM, signal.SIGINT)
# A terminal, Slurm or systemd signals the launcher and its workers, and the launcher passes its signal on: one wish.
SAME_WISH_SECONDS = 2.0


class StopRequest:
    """A flag that a signal raises; ranks agree on it once per step.

    A second SIGTERM or SIGINT, more than ``SAME_WISH_SECONDS`` after the first, ends the process at once.
    """

    def __init__(self, *, end: Callable[[int], None] = os._exit, now: Callable[[], float] = time.monotonic) -> None:
        self._end = end
        self._now = now
        self._first_urgent: float | None = None
        self._on_first: Callable[[], None] | None = None
        self._is_satisfied = False
        self.signal_name: str | None = None

    @property
    def asked(self) -> bool:
        """Whether this process was asked to stop."""
        return self.signal_name is not None

    def call_on_first(self, action: Callable[[], None]) -> None:
        """Call ``action``, in another thread, when the first signal comes; at once if it has come already."""
        self._on_first = action
        if self.asked:
            action()

    def satisfied(self) -> None:
        """Nothing is left to stop: signals that come while the process leaves do not change its exit code any more."""
        self._is_satisfied = True

    def hear(self, number: int) -> None:
        """Take in one signal; any thread may call it."""
        if self._is_satisfied:
            return
        name, first = signal.Signals(number).name, not self.asked
        if number in URGENT:
            now = self._now()
            if self._first_urgent is None:
                self._first_urgent = now
            elif now - self._first_urgent > SAME_WISH_SECONDS:
                self._end(
                    complain(
                        f"second {name}: ended at once, without saving; the last checkpoint is whole", ExitCode.FAILURE
                    )
                )
        self.signal_name = name
        if first and self._on_first is not None:
            self._on_first()


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch the stop signals within the block. After it they are ignored: what the process returns is decided.

    Only the main thread may enter it.
    """
    request = StopRequest()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while numbers := os.read(reading, 64):
            for number in numbers:
                if number in SIGNALS:
                    request.hear(number)

    thread = threading.Thread(target=listen, name="pfc-signals", daemon=True)
    thread.start()
    former_writing = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _leave_it_to_the_thread)
    try:
        yield request
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(former_writing)
        os.close(writing)
        thread.join()
        os.close(reading)


def _leave_it_to_the_thread(number: int, frame: FrameType | None) -> None:
    """Being a handler at all keeps the signal from its usual effect."""
