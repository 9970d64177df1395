"""Processes that outlive whoever started them, told from later ones that were given the same id."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessMark:
    """started: the kernel's ticks since the boot ``boot``: with the id, one process alone."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "ProcessMark | None":
        """Of the process that has this id now; None where there is none, or it has ended."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]), boot)

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return ProcessMark.of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal it; False where it has ended."""
        if not self.is_alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True
