"""The compiled library: which build this processor can run, and how tensors are handed to it."""

import ctypes
import functools
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_CPU_FLAGS = Path("/proc/cpuinfo")
_V4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_V3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}
_COUNTING = ("pfc_score_tile", "pfc_softmax_coefficients")  # these return an int64


def available() -> bool:
    """Whether the compiled kernels are there."""
    return _library() is not None


def call(name: str, *arguments: Any) -> Any:
    """Call a function of the library, its last argument the number of threads; tensors and None become pointers."""
    passed = (pointer(value) if isinstance(value, Tensor) or value is None else value for value in arguments)
    return getattr(_library(), name)(*passed, ctypes.c_int(torch.get_num_threads()))


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """The memory of a contiguous tensor; null for None."""
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous(), "kernels walk over plain memory"
    return ctypes.c_void_p(tensor.data_ptr())


def int64(value: int) -> ctypes.c_int64:
    """A C integer: ctypes would pass a plain int as 32 bits."""
    return ctypes.c_int64(value)


@functools.cache
def _library() -> Any:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for level in _levels():
        path = Path(__file__).with_name(f"_kernels_{level}{suffix}")
        if path.exists():
            library = ctypes.CDLL(str(path))
            for name in _COUNTING:
                getattr(library, name).restype = ctypes.c_int64
            return library
    return None


def _levels() -> list[str]:
    """Instruction sets of this processor, best first."""
    try:
        line = next(line for line in _CPU_FLAGS.read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return ["base"]
    flags = set(line.split())
    return ["v4"] * (flags >= _V4) + ["v3"] * (flags >= _V3) + ["base"]
