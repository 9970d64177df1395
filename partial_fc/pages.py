"""Give the memory behind a part of a CPU tensor back to the system without giving up its addresses."""

import ctypes
import mmap

from torch import Tensor


def return_pages(tensor: Tensor) -> None:
    """Let go of all whole pages of a contiguous CPU tensor; its values are lost. Does nothing where that cannot be."""
    begin = tensor.data_ptr()
    end = begin + tensor.numel() * tensor.element_size()
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    length = end // mmap.PAGESIZE * mmap.PAGESIZE - first
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if length > 0 and advise is not None:
        advise(ctypes.c_void_p(first), ctypes.c_size_t(length), ctypes.c_int(mmap.MADV_DONTNEED))
