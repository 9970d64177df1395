"""Keep freed memory for the next step instead of giving it back to the kernel.

glibc maps every buffer above 32 MiB anew and unmaps it when freed, and trims the heap's top. A training step frees
and asks for the same hundreds of megabytes each time; the page faults of getting zeroed pages again cost a fifth
of a step on a CPU (MobileFaceNet, 64x64, batch 64: 2.2 million faults in 8 steps without this, 0.36 million with).
What a step will not ask for again, such as the room that a checkpoint was read into, is given back once.
"""

import ctypes

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_LARGEST_INT = 2**31 - 1
_GROW_BY = 64 << 20  # bytes


def keep_freed_memory() -> bool:
    """Tell glibc's malloc of this process to keep what is freed; False where the C library is another."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
    mallopt.restype = ctypes.c_int
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST_INT), (_M_TOP_PAD, _GROW_BY))
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)


def give_back_freed_memory() -> bool:
    """Return to the kernel what has been freed so far; False where the C library is another.

    A checkpoint's backbone, its optimizer's state and chunks of the centers were read into memory of their own first.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    trim.argtypes = (ctypes.c_size_t,)
    trim.restype = ctypes.c_int
    return bool(trim(0) == 1)
