"""What a CPU tensor tells the system about the pages behind it: done with some, larger ones welcome."""

import ctypes
import mmap

from torch import Tensor

LARGE = 64 << 20  # bytes below which the translation of addresses costs nothing worth a call


def return_pages(tensor: Tensor) -> None:
    """Let go of all whole pages of a contiguous CPU tensor; its values are lost. Does nothing where that cannot be."""
    _advise(tensor, mmap.MADV_DONTNEED)


def prefer_huge_pages(tensor: Tensor) -> Tensor:
    """The same tensor; where it is large and on the CPU, the system backs what is written from now on with pages of
    2 MiB, if it has some: rows picked from gigabytes then miss the processor's table of addresses less often.
    """
    if tensor.device.type == "cpu" and tensor.nbytes >= LARGE and (huge := getattr(mmap, "MADV_HUGEPAGE", None)):
        _advise(tensor, huge)
    return tensor


def _advise(tensor: Tensor, advice: int) -> None:
    begin = tensor.data_ptr()
    end = begin + tensor.numel() * tensor.element_size()
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if length > 0 and advise is not None:
        advise(ctypes.c_void_p(first), ctypes.c_size_t(length), ctypes.c_int(advice))
