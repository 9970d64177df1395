"""Following a rank's log while it is written."""

import json
from pathlib import Path
from typing import Any


class RankLog:
    """starts: how often a run was started. step: the last one since the newest start; it begins where that began."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.starts = 0
        self.step = 0
        self.events: list[dict[str, Any]] = []

    def update(self) -> "RankLog":
        """Take in what is new."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self._take(line)
        return self

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except ValueError:  # torn by a kill, and continued by the next start
            return
        if event["event"] == "started":
            self.starts += 1
            self.step, self.events = event["step"], []
        if event["event"] == "step":
            self.step = event["step"]
        self.events.append(event)
