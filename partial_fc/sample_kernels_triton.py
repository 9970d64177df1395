"""The functions of :mod:`partial_fc.sample_kernels_torch` in Triton, for CUDA; same arguments.

A GPU that launches one small operation after the other waits for Python: here a function is two or three programs.
Shape letters: N global batch, M the batch padded, W code width, S sampled rows, P own pairs, D embedding size.
"""

import torch
import triton
from torch import Tensor

from partial_fc import triton_samples
from partial_fc.sface import SFace
from partial_fc.triton_width import row_width

ROWS, SAMPLES, PARTS = 32, 64, 64  # of a program, at a time


def code_batch(unit: Tensor, codes: Tensor, scales: Tensor, residuals: Tensor) -> None:
    """See :func:`partial_fc.sample_kernels_torch.code_batch`."""
    padded, width = codes.shape
    if padded:
        triton_samples.code_program[(padded,)](
            unit, len(unit), unit.shape[1], codes, width, scales, residuals, **row_width(width)
        )


def drop_forces(
    dropped: Tensor,
    push: Tensor,
    gram: Tensor,
    pull: Tensor,
    centers: Tensor,
    unit: Tensor,
    weights: Tensor,
    sample_weights: Tensor,
    below: Tensor,
) -> Tensor:
    """See :func:`partial_fc.sample_kernels_torch.drop_forces`."""
    (count, batch), dim = dropped.shape, unit.shape[1]
    programs = triton.cdiv(count, ROWS)
    of_samples = torch.empty(programs, 2, batch, dtype=torch.float64, device=unit.device)
    of_rows = of_samples.new_empty(programs, 2)
    if programs:
        triton_samples.rows_program[(programs,)](
            dropped, count, batch, pull, centers, dim, weights, sample_weights, of_samples, of_rows,
            ROWS=ROWS, SAMPLES=SAMPLES, BLOCK=min(128, triton.next_power_of_2(dim)), num_warps=4,
        )  # fmt: skip
    found = of_samples.new_empty(batch, 4)
    triton_samples.samples_program[(batch,)](
        push, unit, gram, sample_weights, of_samples, programs, batch, dim, found,
        PARTS=PARTS, SAMPLES=SAMPLES, **row_width(dim),
    )  # fmt: skip
    coherent, mass, together, radial = found.sum(dim=0).unbind()
    weighted, force = of_rows.sum(dim=0).unbind()
    chance = 2.0 * (together - weighted).clamp_min(0.0)
    return torch.stack([coherent - below, mass, chance, radial, force])


def own_forces(
    centers: Tensor, weights: Tensor, samples: Tensor, unit: Tensor, sample_weights: Tensor, loss: SFace
) -> Tensor:
    """See :func:`partial_fc.sample_kernels_torch.own_forces`."""
    found = torch.empty(len(centers), 2, dtype=torch.float64, device=unit.device)
    if len(centers):
        dim = unit.shape[1]
        triton_samples.own_program[(len(centers),)](
            centers,
            weights,
            samples,
            unit,
            sample_weights,
            loss.scale,
            loss.slope,
            loss.a,
            dim,
            found,
            **row_width(dim),
        )
    return found.sum(dim=0)
