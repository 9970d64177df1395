"""Signals while something is being sent: heard in time to take back what was begun, and then not heard twice."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDINGS = (signal.SIGTERM, signal.SIGHUP)  # of a process, and of the terminal that it was started from


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP are KeyboardInterrupt, as SIGINT is: what was begun can be taken back."""
    with _handled(dict.fromkeys(ENDINGS, _interrupt)):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """No signal but SIGKILL ends what is done here."""
    with _handled(dict.fromkeys((signal.SIGINT, *ENDINGS), signal.SIG_IGN)):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """Of the main thread, the only one that Python lets set them; a signal that is ignored stays so."""
    former = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    former[number] = signal.signal(number, handler)
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
