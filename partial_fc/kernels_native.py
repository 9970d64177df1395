"""The kernels of :mod:`partial_fc.kernels_torch` in C++ and OpenMP, for the CPU; same names, same arguments.

Without the library (no compiler when the package was installed) PyTorch does the work.
Shape letters: R rows of the shard, D embedding size, N global batch, T rows of a tile, P pairs, S sampled rows, M own
pairs (a sample and its own center).
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from partial_fc.kernels_torch import tile_rows
from partial_fc.native_library import call, int64, pointer
from partial_fc.pairs import Pairs, ScoreSums
from partial_fc.row_tables import Motion, RowTables
from partial_fc.sface import SFace

__all__ = ["tile_rows"]

FUSED = False

_ARRAYS = (
    *("weights", "codes", "scales", "slack", "slots", "momentum"),
    *("touched", "expiry", "unrest", "travel", "decay", "places"),
)


class _Rows(ctypes.Structure):
    """native/rows.h: struct Rows."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _ARRAYS),
        ("dim", ctypes.c_int64),
        ("code_width", ctypes.c_int64),
        ("key_low", ctypes.c_uint32),
        ("key_high", ctypes.c_uint32),
        ("first_class", ctypes.c_int64),
        ("half", ctypes.c_int32),
        ("now", ctypes.c_int32),
        ("norm_floor", ctypes.c_float),
        ("calm", ctypes.c_float),
    )


def gather_unit(tables: RowTables, rows: Tensor | None, start: int, count: int, unit: Tensor, inverse: Tensor) -> None:
    """See :func:`partial_fc.kernels_torch.gather_unit`."""
    _call("pfc_gather_unit", tables, rows, int64(start), int64(count), unit, inverse)


def encode_rows(tables: RowTables, start: int, count: int) -> None:
    """See :func:`partial_fc.kernels_torch.encode_rows`."""
    _call("pfc_encode", tables, int64(start), int64(count))


def update_rows(
    tables: RowTables, rows: Tensor, pairs: Pairs | None, offsets: Tensor | None, embeddings: Tensor, motion: Motion
) -> None:
    """See :func:`partial_fc.kernels_torch.update_rows`."""
    parts = (None, None, None) if pairs is None else (pairs.samples, pairs.coefficients, pairs.cosines)
    _call("pfc_update", tables, rows, int64(len(rows)), offsets, *parts, embeddings, *_motion(motion))


def update_dense(tables: RowTables, start: int, sums: Tensor, motion: Motion) -> None:
    """See :func:`partial_fc.kernels_torch.update_dense`."""
    _call("pfc_update_dense", tables, int64(start), int64(len(sums)), sums, *_motion(motion))


def settle_rows(tables: RowTables, rows: Tensor, rest: float, motion: Motion) -> None:
    """See :func:`partial_fc.kernels_torch.settle_rows`."""
    _call(
        "pfc_settle",
        tables,
        rows,
        int64(len(rows)),
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
        int64(start),
        int64(count),
        int64(batch),
        dots,
        scales,
        residuals,
        embeddings,
        *own,
        int64(len(own[0])),
        loss_values(loss),
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


def candidate_rows(
    tables: RowTables, start: int, dots: Tensor, scales: Tensor, residuals: Tensor, lowest: float
) -> Tensor:
    """See :func:`partial_fc.kernels_torch.candidate_rows`."""
    count, batch = dots.shape
    found = torch.empty(count, dtype=torch.bool)
    sizes = int64(start), int64(count), int64(batch)
    _call("pfc_candidate_rows", tables, *sizes, dots, scales, residuals, ctypes.c_float(lowest), found)
    return found.nonzero().squeeze(1) + start


def dense_coefficients(
    cosines: Tensor, own: tuple[Tensor, Tensor], loss: SFace, cut: float, sums: Tensor | None
) -> None:
    """See :func:`partial_fc.kernels_torch.dense_coefficients`."""
    count, batch = cosines.shape
    call(
        "pfc_dense_coefficients",
        cosines,
        int64(count),
        int64(batch),
        *own,
        int64(len(own[0])),
        loss_values(loss),
        ctypes.c_float(cut),
        sums,
    )


def sample_levels(
    cosines: Tensor, inverses: Tensor, sample_inverses: Tensor, loss: SFace, cut: float, levels: Tensor, sums: Tensor
) -> None:
    """See :func:`partial_fc.kernels_torch.sample_levels`."""
    count, batch = cosines.shape
    call(
        "pfc_sample_levels",
        cosines,
        int64(count),
        int64(batch),
        inverses,
        sample_inverses,
        loss_values(loss),
        ctypes.c_float(cut),
        levels,
        int64(len(levels)),
        sums,
    )


def gradient_blocks() -> int:
    """Blocks of the ``gradient`` that :func:`score_tile` takes: one per thread."""
    return torch.get_num_threads()


def _motion(motion: Motion) -> tuple[Any, ...]:
    values = (motion.rate, motion.momentum_factor, motion.reach, motion.patient_reach, motion.rounding)
    return (*map(ctypes.c_float, values), ctypes.c_int32(motion.longest))


def loss_values(loss: SFace) -> Any:
    """native/loss.h: struct Loss, as four numbers."""
    return (ctypes.c_float * 4)(loss.scale, loss.slope, loss.a, loss.b)


def fixed(tables: RowTables) -> Any:
    """``tables`` as :func:`score_tile` takes them in, made once for many calls: no array of theirs may be replaced."""
    return _Rows(
        *(pointer(getattr(tables, name)) for name in _ARRAYS),
        tables.weights.shape[1],
        tables.code_width,
        *tables.rounding.halves,
        tables.rounding.first_class,
        tables.weights.dtype == torch.bfloat16,
        tables.now,
        tables.norm_floor,
        tables.calm,
    )


def _call(name: str, tables: Any, *arguments: Any) -> Any:
    rows = tables if isinstance(tables, _Rows) else fixed(tables)
    return call(name, ctypes.byref(rows), *arguments)
