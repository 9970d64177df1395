"""The kernels of :mod:`partial_fc.kernels_torch` in C++ and OpenMP, for the CPU; same names, same arguments.

Without the library (no compiler when the package was installed) ``available()`` is False and PyTorch does the work.
Shape letters: R rows of the shard, D embedding size, N global batch, T rows of a tile, P pairs, S sampled rows, M own
pairs (a sample and its own center).
"""

import ctypes
import functools
import sysconfig
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from partial_fc.pairs import Pairs, ScoreSums
from partial_fc.row_tables import Motion, RowTables
from partial_fc.sface import SFace

_CPU_FLAGS = Path("/proc/cpuinfo")
_V4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_V3 = {"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"}


_ARRAYS = (
    *("weights", "codes", "scales", "slack", "slots", "momentum"),
    *("touched", "expiry", "unrest", "travel", "decay"),
)


class _Rows(ctypes.Structure):
    """native/rows.h: struct Rows."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        ("dim", ctypes.c_int64),
        ("code_width", ctypes.c_int64),
        ("now", ctypes.c_int32),
        ("norm_floor", ctypes.c_float),
        ("calm", ctypes.c_float),
    )


def available() -> bool:
    """Whether the compiled kernels are there."""
    return _library() is not None


@functools.cache
def _library() -> Any:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for level in _levels():
        path = Path(__file__).with_name(f"_kernels_{level}{suffix}")
        if path.exists():
            library = ctypes.CDLL(str(path))
            library.pfc_score_tile.restype = ctypes.c_int64
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


def gather_unit(tables: RowTables, rows: Tensor | None, start: int, count: int, unit: Tensor, inverse: Tensor) -> None:
    """See :func:`partial_fc.kernels_torch.gather_unit`."""
    _call("pfc_gather_unit", tables, rows, _int(start), _int(count), unit, inverse)


def encode_all(tables: RowTables) -> None:
    """See :func:`partial_fc.kernels_torch.encode_all`."""
    _call("pfc_encode", tables, _int(len(tables.weights)))


def update_rows(
    tables: RowTables, rows: Tensor, pairs: Pairs | None, offsets: Tensor | None, embeddings: Tensor, motion: Motion
) -> None:
    """See :func:`partial_fc.kernels_torch.update_rows`."""
    parts = (None, None, None) if pairs is None else (pairs.samples, pairs.coefficients, pairs.cosines)
    _call("pfc_update", tables, rows, _int(len(rows)), offsets, *parts, embeddings, *_motion(motion))


def update_dense(tables: RowTables, start: int, sums: Tensor, motion: Motion) -> None:
    """See :func:`partial_fc.kernels_torch.update_dense`."""
    _call("pfc_update_dense", tables, _int(start), _int(len(sums)), sums, *_motion(motion))


def settle_rows(tables: RowTables, rows: Tensor, rest: float, motion: Motion) -> None:
    """See :func:`partial_fc.kernels_torch.settle_rows`."""
    _call(
        "pfc_settle",
        tables,
        rows,
        _int(len(rows)),
        ctypes.c_float(rest),
        *_motion(motion)[1:],
    )


def score_tile(
    tables: RowTables,
    start: int,
    dots: Tensor,
    scales: Tensor,
    residuals: Tensor,
    embeddings: Tensor,
    own: tuple[Tensor, Tensor],
    loss: SFace,
    lowest: float,
    cut: float,
    kept: Pairs,
    gradient: Tensor | None,
    sums: ScoreSums,
) -> int:
    """See :func:`partial_fc.kernels_torch.score_tile`."""
    count, batch = dots.shape
    found: int = _call(
        "pfc_score_tile",
        tables,
        _int(start),
        _int(count),
        _int(batch),
        dots,
        scales,
        residuals,
        embeddings,
        *own,
        _int(len(own[0])),
        _loss(loss),
        ctypes.c_float(lowest),
        ctypes.c_float(cut),
        kept.rows,
        kept.samples,
        kept.coefficients,
        kept.cosines,
        gradient,
        sums.values,
    )
    return found


def dense_coefficients(
    cosines: Tensor, own: tuple[Tensor, Tensor], loss: SFace, cut: float, sums: Tensor | None
) -> None:
    """See :func:`partial_fc.kernels_torch.dense_coefficients`."""
    count, batch = cosines.shape
    _plain_call(
        "pfc_dense_coefficients",
        cosines,
        _int(count),
        _int(batch),
        *own,
        _int(len(own[0])),
        _loss(loss),
        ctypes.c_float(cut),
        sums,
    )


def sample_levels(
    cosines: Tensor, inverses: Tensor, sample_inverses: Tensor, loss: SFace, cut: float, levels: Tensor, sums: Tensor
) -> None:
    """See :func:`partial_fc.kernels_torch.sample_levels`."""
    count, batch = cosines.shape
    _plain_call(
        "pfc_sample_levels",
        cosines,
        _int(count),
        _int(batch),
        inverses,
        sample_inverses,
        _loss(loss),
        ctypes.c_float(cut),
        levels,
        _int(len(levels)),
        sums,
    )


def gradient_blocks() -> int:
    """Blocks of the ``gradient`` that :func:`score_tile` takes: one per thread."""
    return torch.get_num_threads()


def _int(value: int) -> ctypes.c_int64:
    return ctypes.c_int64(value)


def _motion(motion: Motion) -> tuple[Any, ...]:
    values = (motion.rate, motion.momentum_factor, motion.reach, motion.patient_reach, motion.rounding)
    return (*map(ctypes.c_float, values), ctypes.c_int32(motion.longest))


def _loss(loss: SFace) -> Any:
    return (ctypes.c_float * 4)(loss.scale, loss.slope, loss.a, loss.b)


def _call(name: str, tables: RowTables, *arguments: Any) -> Any:
    rows = _Rows(
        *(_pointer(getattr(tables, name)) for name in _ARRAYS),
        tables.weights.shape[1],
        tables.code_width,
        tables.now,
        tables.norm_floor,
        tables.calm,
    )
    return _plain_call(name, ctypes.byref(rows), *arguments)


def _plain_call(name: str, *arguments: Any) -> Any:
    passed = (_pointer(value) if isinstance(value, Tensor) or value is None else value for value in arguments)
    return getattr(_library(), name)(*passed, ctypes.c_int(torch.get_num_threads()))


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    if tensor is None:
        return ctypes.c_void_p(None)
    assert tensor.is_contiguous(), "kernels walk over plain memory"
    return ctypes.c_void_p(tensor.data_ptr())
