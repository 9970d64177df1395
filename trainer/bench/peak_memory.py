"""Peak resident memory of this process since a mark, from Linux's /proc."""

import ctypes
from contextlib import suppress
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Let the kernel count the peak anew; False where it does not offer that.

    What was freed is given back to the kernel first: memory that malloc keeps would hide what comes next in it.
    """
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_bytes() -> int:
    """Largest resident size since the last reset, bytes; 0 where /proc does not tell."""
    return _status("VmHWM")


def resident_bytes() -> int:
    """Resident size now, bytes; 0 where /proc does not tell."""
    return _status("VmRSS")


def _status(key: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
