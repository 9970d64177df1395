"""The functions of :mod:`partial_fc.tile_kernels_torch` in Triton, for contiguous memory on CUDA; same arguments.

Tables of weights are float32 or bfloat16, everything else is float32.
Shape letters: T rows of a tile, N global batch, D embedding size.
"""

import torch
import triton
from torch import Tensor

from partial_fc import triton_tiles
from partial_fc.stochastic_rounding import Rounding
from partial_fc.tile_kernels_torch import NO_ROUNDING
from partial_fc.triton_width import row_width

ROWS, SAMPLES = 32, 128  # of a program, at a time
LOOPS = 8  # times ROWS: of a program that adds up exponentials


def unit_rows(table: Tensor, rows: Tensor | None, start: int, norm_floor: float, unit: Tensor, inverse: Tensor) -> None:
    """See :func:`partial_fc.tile_kernels_torch.unit_rows`."""
    count, dim = unit.shape
    if count:
        triton_tiles.unit_program[(count,)](table, rows, start, norm_floor, unit, inverse, dim, **row_width(dim))


def add_exponentials(cosines: Tensor, scale: float, maxima: Tensor, sums: Tensor) -> None:
    """See :func:`partial_fc.tile_kernels_torch.add_exponentials`; the tile's values stay."""
    count, batch = cosines.shape
    if not count or not batch:
        return
    samples = _samples(batch)
    programs = triton.cdiv(count, ROWS * LOOPS)
    found, parts = cosines.new_empty(2, programs, batch)
    triton_tiles.exponentials_program[(programs, triton.cdiv(batch, samples))](
        cosines, count, batch, scale, found, parts, LOOPS=LOOPS, ROWS=ROWS, SAMPLES=samples, num_warps=4
    )
    higher = torch.maximum(maxima, found.amax(dim=0))
    sums *= torch.exp(maxima - higher)
    sums += (parts * torch.exp(found - higher)).sum(dim=0)
    maxima.copy_(higher)


def softmax_coefficients(cosines: Tensor, scale: float, offsets: Tensor, cut: float) -> Tensor | int:
    """See :func:`partial_fc.tile_kernels_torch.softmax_coefficients`."""
    count, batch = cosines.shape
    if not count or not batch:
        return 0
    samples = _samples(batch)
    grid = (triton.cdiv(count, ROWS), triton.cdiv(batch, samples))
    active = torch.empty(grid[0] * grid[1], dtype=torch.int32, device=cosines.device)
    triton_tiles.coefficients_program[grid](
        cosines, count, batch, scale, offsets, cut, active, ROWS=ROWS, SAMPLES=samples, num_warps=4
    )
    return active.sum()


def through_unit_rows(gradient: Tensor, unit: Tensor, inverse: Tensor) -> None:
    """See :func:`partial_fc.tile_kernels_torch.through_unit_rows`."""
    count, dim = gradient.shape
    if count:
        triton_tiles.through_program[(count,)](gradient, unit, inverse, dim, **row_width(dim))


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
    if not count:
        return
    triton_tiles.sgd_program[(count,)](
        weights, momentum, rows, rounding.classes, start, gradient, lr, momentum_factor, weight_decay,
        *rounding.signed_halves, rounding.first_class, dim, **row_width(dim),
    )  # fmt: skip


def _samples(batch: int) -> int:
    samples: int = triton.next_power_of_2(batch)
    return min(SAMPLES, max(16, samples))
