"""A command with a terminal of its own."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from commands import MARK, environment, kill_marked

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


class Terminal:
    """What the command draws, and keys for it."""

    def __init__(self, process: "subprocess.Popen[bytes]", number: int) -> None:
        self.process = process
        self.raw = ""
        self._number = number

    @property
    def text(self) -> str:
        """All that was drawn so far, without control sequences."""
        return CONTROL.sub("", self.raw)

    @property
    def echoes(self) -> bool:
        """Whether the terminal is in its usual mode."""
        return bool(termios.tcgetattr(self._number)[3] & (termios.ECHO | termios.ICANON))

    def press(self, key: str) -> None:
        os.write(self._number, key.encode())

    def wait_until(self, words: str, *, deadline_seconds: float = 60.0) -> None:
        end = time.monotonic() + deadline_seconds
        while words not in self.text:
            assert time.monotonic() < end, f"{words!r} was not drawn within {deadline_seconds} s: {self.text}"
            self._read(0.2)

    def code(self, *, deadline_seconds: float = 60.0) -> int:
        """Its exit code; what it draws at the end is read meanwhile."""
        end = time.monotonic() + deadline_seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still there after {deadline_seconds} s"
            self._read(0.1)
        self._read(0.1)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        ready, _, _ = select.select([self._number], [], [], seconds)
        if ready:
            self.raw += os.read(self._number, 1 << 16).decode("utf-8", "replace")


@contextmanager
def terminal(
    command: Sequence[str], *, cwd: Path, mark: str, columns: int = 100, lines: int = 40
) -> Iterator[Terminal]:
    """The command runs in a terminal of this size; it is gone after the block."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    dropped = ("COLUMNS", "LINES", "NO_COLOR")
    variables = {key: value for key, value in environment().items() if key not in dropped}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=variables | {MARK: mark, "TMPDIR": str(cwd), "TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # Keys such as Ctrl-C become signals only for the terminal of a session.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        yield Terminal(process, ours)
    finally:
        kill_marked(mark)
        process.wait(timeout=20)
        os.close(theirs)
        os.close(ours)
