"""The compiled part of this package, where it was installed with a compiler."""

import ctypes
import functools
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def available() -> bool:
    """Whether the compiled functions are there."""
    return _library() is not None


def call(name: str, *arguments: int | bytes | NDArray[Any]) -> None:
    """Call a function of the library, without Python's lock; numbers pass as int64, arrays as pointers."""
    getattr(_library(), name)(*map(_passed, arguments))


def _passed(value: int | bytes | NDArray[Any]) -> Any:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous, "compiled code walks over plain memory"
        return ctypes.c_void_p(value.ctypes.data)
    return ctypes.c_int64(value) if isinstance(value, int) else value


@functools.cache
def _library() -> Any:
    path = Path(__file__).with_name(f"_native{sysconfig.get_config_var('EXT_SUFFIX')}")
    return ctypes.CDLL(str(path)) if path.exists() else None
