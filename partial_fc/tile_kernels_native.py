"""The functions of :mod:`partial_fc.tile_kernels_torch` in C++ and OpenMP, for contiguous memory on the CPU.

Tables of weights are float32 or bfloat16, everything else is float32.
"""

from ctypes import c_float, c_int, c_uint32

import torch
from torch import Tensor

from partial_fc.native_library import call, int64
from partial_fc.stochastic_rounding import Rounding
from partial_fc.tile_kernels_torch import NO_ROUNDING


def unit_rows(table: Tensor, rows: Tensor | None, start: int, norm_floor: float, unit: Tensor, inverse: Tensor) -> None:
    """See :func:`partial_fc.tile_kernels_torch.unit_rows`."""
    count, dim = unit.shape
    sizes = int64(start), int64(count), int64(dim)
    call("pfc_unit_rows", table, _half(table), rows, *sizes, c_float(norm_floor), unit, inverse)


def add_exponentials(cosines: Tensor, scale: float, maxima: Tensor, sums: Tensor) -> None:
    """See :func:`partial_fc.tile_kernels_torch.add_exponentials`."""
    count, batch = cosines.shape
    call("pfc_add_exponentials", cosines, int64(count), int64(batch), c_float(scale), maxima, sums)


def softmax_coefficients(cosines: Tensor, scale: float, offsets: Tensor, cut: float) -> int:
    """See :func:`partial_fc.tile_kernels_torch.softmax_coefficients`."""
    count, batch = cosines.shape
    active: int = call(
        "pfc_softmax_coefficients", cosines, int64(count), int64(batch), c_float(scale), offsets, c_float(cut)
    )
    return active


def through_unit_rows(gradient: Tensor, unit: Tensor, inverse: Tensor) -> None:
    """See :func:`partial_fc.tile_kernels_torch.through_unit_rows`."""
    count, dim = unit.shape
    call("pfc_through_unit_rows", gradient, unit, inverse, int64(count), int64(dim))


def sgd_rows(
    weights: Tensor,
    momentum: Tensor | None,
    rows: Tensor | None,
    start: int,
    gradient: Tensor,
    lr: float,
    momentum_factor: float,
    weight_decay: float,
    rounding: Rounding = NO_ROUNDING,
) -> None:
    """See :func:`partial_fc.tile_kernels_torch.sgd_rows`."""
    count, dim = gradient.shape
    call(
        "pfc_sgd_rows",
        weights,
        _half(weights),
        momentum,
        rows,
        int64(start),
        int64(count),
        int64(dim),
        gradient,
        c_float(lr),
        c_float(momentum_factor),
        c_float(weight_decay),
        *map(c_uint32, rounding.halves),
        int64(rounding.first_class),
        rounding.classes,
    )


def _half(table: Tensor) -> c_int:
    return c_int(table.dtype == torch.bfloat16)
