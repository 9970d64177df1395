"""Single keys from a terminal, read while something else goes on."""

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_key(pressed: Callable[[str], None]) -> Iterator[None]:
    """Call ``pressed`` for every key within the block; the terminal is left as it was. Needs a running event loop.

    Without a terminal to read from there are no keys.
    """
    if not sys.stdin.isatty():
        yield
        return
    number = sys.stdin.fileno()
    loop, before = asyncio.get_running_loop(), termios.tcgetattr(number)

    def read() -> None:
        try:
            keys = os.read(number, 64)
        except OSError:  # the terminal was closed
            keys = b""
        if not keys:
            loop.remove_reader(number)
        for key in keys.decode("utf-8", "replace"):
            pressed(key)

    tty.setcbreak(number, termios.TCSADRAIN)
    loop.add_reader(number, read)
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
