"""Stand-ins for the few globals that pickled images and flags name: bytes, latin-1 text, one-byte numpy arrays.

A pickle rebuilds its objects by calling what it names. Here the names select one of these pure functions; no module
is imported, and no class of the pickle's choosing is made.
"""

import math
from dataclasses import dataclass


class PickleRefusedError(ValueError):
    """The bytes are no pickle, are cut short, or ask for something outside the subset. One short phrase."""


@dataclass(frozen=True)
class Callable:
    """Stands for a global that is re-implemented here; the pickle never gets hold of the real one."""

    name: str


@dataclass
class NumpyDtype:
    """A one-byte numpy type, 'u1' or 'b1': all that images and flags are stored in."""

    code: str


@dataclass
class NumpyArray:
    """The state of a pickled numpy array, never turned into one: its bytes and its shape, in C order."""

    code: str = ""
    shape: tuple[int, ...] = ()
    data: bytes = b""


_NAMES = {
    ("_codecs", "encode"): "encode",
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    **{(module, kind): "bytes" for module in ("__builtin__", "builtins") for kind in ("bytes", "bytearray")},
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    _NAMES[_core + ".multiarray", "_reconstruct"] = "_reconstruct"
    _NAMES[_core + ".multiarray", "scalar"] = "scalar"
    _NAMES[_core + ".numeric", "_frombuffer"] = "_frombuffer"


def find_callable(module: object, name: object) -> Callable:
    """The stand-in for `module.name`; raises `PickleRefusedError` on any name outside the list."""
    if isinstance(module, str) and isinstance(name, str) and (module, name) in _NAMES:
        return Callable(_NAMES[module, name])
    raise PickleRefusedError(f"asks to import {_shown(module)}.{_shown(name)}, which is not allowed")


def call(target: object, arguments: object) -> object:
    """What REDUCE leaves on the stack. The argument forms are those that pickle and numpy themselves write."""
    if not isinstance(target, Callable) or not isinstance(arguments, tuple):
        raise PickleRefusedError("calls something that is not allowed")
    match target.name, arguments:
        case "encode", (str() as text, "latin1" | "latin-1"):
            try:
                return text.encode("latin-1")
            except UnicodeEncodeError:
                raise PickleRefusedError("holds text that is not latin-1 where bytes belong") from None
        case "bytes", ():
            return b""
        case "bytes", (bytes() as raw,):
            return raw
        case "dtype", (str() | bytes() as spelled, *_):
            code = (spelled if isinstance(spelled, str) else spelled.decode("latin-1")).lstrip("|")
            if code in ("u1", "b1"):
                return NumpyDtype(code)
            raise PickleRefusedError(f"holds a numpy {_shown(code)}: images are uint8, flags are bool")
        case "_reconstruct", (Callable("ndarray"), tuple(), _):
            return NumpyArray()
        case "scalar", (NumpyDtype("b1"), bytes() as raw) if len(raw) == 1:
            return raw != b"\0"
        case "_frombuffer", (bytes() as raw, NumpyDtype(code), tuple() as shape, "C"):
            return _filled(NumpyArray(), code, shape, raw)
    raise PickleRefusedError(f"calls {target.name} with arguments of an unknown form")


def set_state(target: object, state: object) -> object:
    """What BUILD leaves on the stack: `target` with the state that numpy gives its types and arrays."""
    match target, state:
        case NumpyDtype(), tuple():
            return target  # the state is byte order and alignment, which one-byte types do not have
        case (
            NumpyArray(code=""),
            (1, tuple() as shape, NumpyDtype(code), bool() | 0 | 1 as fortran, bytes() as raw),
        ) if not fortran or len(shape) < 2:
            return _filled(target, code, shape, raw)
    raise PickleRefusedError("opcode BUILD on something other than a plain numpy array is not allowed")


def _filled(array: NumpyArray, code: str, shape: tuple[object, ...], raw: bytes) -> NumpyArray:
    sizes = tuple(size for size in shape if isinstance(size, int) and size >= 0)
    if len(sizes) != len(shape) or len(sizes) > 4 or math.prod(sizes) != len(raw):
        raise PickleRefusedError(f"holds a numpy array whose shape does not fit its {len(raw)} bytes")
    array.code, array.shape, array.data = code, sizes, raw
    return array


def _shown(value: object) -> str:
    """A hostile name made fit for a one-line message."""
    return ascii(value)[1:-1][:60] if isinstance(value, str) else "?"
