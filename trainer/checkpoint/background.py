"""One function on a thread of its own; what it raised is kept for whoever asks."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

NICENESS = 10  # training comes first where there are no cores to spare


class Running(Protocol):
    """A function that was started."""

    error: Exception | None

    def is_running(self) -> bool:
        """Whether it has not returned yet."""

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has returned, or ``timeout`` seconds."""


class Background:
    """Starts ``action`` at once. The thread does not keep the process alive.

    error: what ``action`` raised, once it is over.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self._action = action
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Whether it has not returned yet."""
        return self._thread.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has returned, or ``timeout`` seconds."""
        self._thread.join(timeout)

    def _run(self) -> None:
        with suppress(OSError, AttributeError):  # another system than Linux, where threads have no niceness
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            self._action()
        except Exception as error:
            self.error = error
