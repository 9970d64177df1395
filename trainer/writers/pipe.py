"""A child process that is fed lines of JSON, and that is waited for at the end alone, for seconds."""

import json
import os
import select
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

WAITING_LINES = 10_000  # more are dropped, oldest first


class FedProcess:
    """``python -m MODULE`` with lines on its input; ``told`` gives the lines that it has printed so far.

    It is in a session of its own: Ctrl-C at the terminal is for us, and the end of its input for it. Its errors go to
    the file ``log``.
    """

    def __init__(self, module: str, *, log: Path) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                bufsize=0,
            )
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        self._input, self._output = self._process.stdin, self._process.stdout
        for pipe in (self._input, self._output):
            os.set_blocking(pipe.fileno(), False)
        self._waiting: deque[bytes] = deque()
        self._printed = b""
        self.dropped = 0

    @property
    def ended(self) -> int | None:
        """Its exit code; None while it lives."""
        return self._process.poll()

    def send(self, message: dict[str, Any]) -> None:
        """Hand over what it takes now; the rest waits for the next time."""
        self._waiting.append(json.dumps(message).encode() + b"\n")
        self._hand_over()
        while len(self._waiting) > WAITING_LINES:
            # The first one may be half handed over.
            del self._waiting[1]
            self.dropped += 1

    def told(self) -> list[str]:
        """The lines it has printed since the last time."""
        try:
            while piece := self._output.read(1 << 16):
                self._printed += piece
        except OSError:
            pass
        *lines, self._printed = self._printed.split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def finish(self, *, deadline_seconds: float) -> bool:
        """End its input and wait; whether it has taken all and ended well. One that does not end is killed."""
        end = time.monotonic() + deadline_seconds
        while self._waiting and self.ended is None and (left := end - time.monotonic()) > 0:
            select.select([], [self._input], [], min(left, 0.2))
            self._hand_over()
        complete = not self._waiting
        self._input.close()
        try:
            code = self._process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return False
        return code == 0 and complete

    def close(self) -> None:
        """Nothing is read any more."""
        self._output.close()

    def _hand_over(self) -> None:
        try:
            while self._waiting:
                taken = os.write(self._input.fileno(), self._waiting[0])
                if taken < len(self._waiting[0]):
                    self._waiting[0] = self._waiting[0][taken:]
                else:
                    self._waiting.popleft()
        except BlockingIOError:
            pass
        except BrokenPipeError:  # it has ended, and ``ended`` says so
            self._waiting.clear()
