"""What a measured run tells: its rank log, and the lines of its launcher with the time of their arrival."""

import json
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import IO, Any

KEPT_LINES = 20


class RankEvents:
    """Events of one rank's log, in order, as far as they are written; each with ``at``, seconds since 1970."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.events: list[dict[str, Any]] = []

    def update(self) -> list[dict[str, Any]]:
        """Take in what is new; all events."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self._take(line)
        return self.events

    def after(self, event: dict[str, Any], name: str) -> dict[str, Any] | None:
        """The first event of that name after ``event``, or None."""
        place = next(place for place, each in enumerate(self.events) if each is event)
        return next((each for each in self.events[place + 1 :] if each["event"] == name), None)

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            event["at"] = datetime.fromisoformat(event["time"]).timestamp()
        except (ValueError, KeyError, TypeError):  # torn by the kill, and continued by the next start
            return
        self.events.append(event)


class ArrivingLines:
    """Lines of a stream with the time of each one's arrival, read by a thread until the stream ends."""

    def __init__(self, stream: IO[str]) -> None:
        self.lines: list[tuple[float, str]] = []
        self._stream = stream
        self._thread = threading.Thread(target=self._read, name="lines", daemon=True)
        self._thread.start()

    def first_after(self, moment: float, begin: str) -> float | None:
        """When the first line with that beginning came, not before ``moment``; None if none has come yet."""
        return next((at for at, line in list(self.lines) if at >= moment and line.startswith(begin)), None)

    def newest(self) -> str:
        """The last lines, for people."""
        return " | ".join(line for _, line in self.lines[-KEPT_LINES:])

    def join(self) -> None:
        """Wait for the end of the stream, whose writers have ended."""
        self._thread.join(timeout=10.0)

    def _read(self) -> None:
        for line in self._stream:
            self.lines.append((time.time(), line.rstrip("\n")))
