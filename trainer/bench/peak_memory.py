"""Peak memory of this process since a mark: resident, from Linux's /proc, or of PyTorch's tensors on a GPU."""

import ctypes
from contextlib import suppress
from pathlib import Path

import torch

CPU = torch.device("cpu")
_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak(device: torch.device = CPU) -> bool:
    """Let the kernel count the peak anew; False where it does not offer that.

    What was freed is given back to the kernel first: memory that malloc keeps would hide what comes next in it.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device = CPU) -> int:
    """Largest resident size, or size of all tensors on a GPU, since the last reset, bytes; 0 where nothing tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM")


def resident_bytes() -> int:
    """Resident size now, bytes; 0 where /proc does not tell."""
    return _status("VmRSS")


def file_bytes() -> int:
    """Resident pages of files now, bytes: of libraries, above all."""
    return _status("RssFile")


def _status(key: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
