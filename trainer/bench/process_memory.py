"""Memory of other processes while they run, from Linux's /proc: what each held at most, and all of them together."""

import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PROC = Path("/proc")
_SHARE_OF_TIME = 0.02  # reading smaps_rollup holds up a process that asks for memory meanwhile


def descendants(pid: int) -> list[int]:
    """The process and all that it has started, as far as their parents live."""
    parents: dict[int, int] = {}
    for folder in _PROC.glob("[0-9]*"):
        with suppress(OSError, ValueError):  # ended meanwhile
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:  # grows while it is walked
        found += [child for child, parent in parents.items() if parent == each]
    return found


def peak_resident_bytes(pid: int) -> int:
    """Largest resident size since the process began; 0 where it has ended."""
    return _kibibytes(_PROC / str(pid) / "status", "VmHWM")


def proportional_bytes(pid: int) -> int:
    """Proportional set size now: its own pages, and of shared ones its part; 0 where it has ended."""
    return _kibibytes(_PROC / str(pid) / "smaps_rollup", "Pss")


class MemoryWatch:
    """Looks at a process and its descendants, every second or so, until the block ends.

    peak_resident: by process, as the kernel counts it, exact up to the last look. peak_proportional: the largest sum of
    proportional sizes over all of them at one look; libraries that ranks share are in it once.
    """

    def __init__(self, pid: int, *, every_seconds: float = 1.0) -> None:
        self.peak_resident: dict[int, int] = {}
        self.peak_proportional = 0
        self._pid, self._every = pid, every_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def look(self) -> None:
        """Once."""
        together = 0
        for pid in descendants(self._pid):
            resident = peak_resident_bytes(pid)
            if resident:
                self.peak_resident[pid] = max(resident, self.peak_resident.get(pid, 0))
            together += proportional_bytes(pid)
        self.peak_proportional = max(together, self.peak_proportional)

    def _watch(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            began = time.perf_counter()
            self.look()
            pause = max(self._every, (time.perf_counter() - began) / _SHARE_OF_TIME)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()


def _kibibytes(path: Path, key: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
