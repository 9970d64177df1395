"""How much memory there is to take: asked first, because the kernel's answer is a kill."""

from contextlib import suppress
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_RECLAIMABLE = ("active_file", "inactive_file")  # a container's page cache counts as used and is given up on demand


def available_bytes() -> int | None:
    """What this machine, or the container's limit where that is lower, has left; None where nothing tells."""
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        line = next(line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable"))
        found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):  # "max" stands for no limit
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        cached = sum(int(value) for name, value in lines if name in _RECLAIMABLE)
        found.append(limit - used + cached)
    return min(found, default=None)
