"""A file of lines that a full disk does not end: what cannot be written waits in memory until there is room."""

import errno
import os
from collections import deque
from pathlib import Path

WAITING_LINES = 10_000  # more are dropped, oldest first


class AppendedFile:
    """Appends to ``path``, opening it for every line, so that it may be moved or deleted meanwhile.

    A record is written as a whole or waits as a whole. problem: why records wait; None while all is well. dropped:
    records given up.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: OSError | None = None
        self.dropped = 0
        self._waiting: deque[bytes] = deque()

    @property
    def waiting(self) -> int:
        """Records not written yet."""
        return len(self._waiting)

    def append_bytes(self, record: bytes) -> None:
        """Write ``record``, after those that wait, or let it wait."""
        self._waiting.append(record)
        try:
            with self.path.open("ab", buffering=0) as file:
                while self._waiting:
                    end = os.fstat(file.fileno()).st_size
                    content = self._waiting[0]
                    try:
                        if file.write(content) != len(content):
                            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                    except OSError:
                        os.ftruncate(file.fileno(), end)
                        raise
                    self._waiting.popleft()
            self.problem = None
        except OSError as error:
            self.problem = error
            while len(self._waiting) > WAITING_LINES:
                self._waiting.popleft()
                self.dropped += 1


class LineFile(AppendedFile):
    """The same of lines of text."""

    def append(self, line: str) -> None:
        """Write ``line``, after those that wait, or let it wait; a line is never written in part."""
        self.append_bytes(line.encode() + b"\n")

    def write(self, text: str) -> None:
        """As of a text file, for loggers: whole lines only."""
        for line in text.splitlines():
            self.append(line)

    def flush(self) -> None:
        """Nothing is held back but what waits."""
