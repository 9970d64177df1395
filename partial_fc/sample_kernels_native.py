"""The functions of :mod:`partial_fc.sample_kernels_torch` in C++ and OpenMP, for contiguous float32 on the CPU."""

from ctypes import c_double

import torch
from torch import Tensor

from partial_fc.kernels_native import loss_values
from partial_fc.native_library import call, int64
from partial_fc.sface import SFace


def code_batch(unit: Tensor, codes: Tensor, scales: Tensor, residuals: Tensor) -> None:
    """See :func:`partial_fc.sample_kernels_torch.code_batch`."""
    (batch, dim), (padded, width) = unit.shape, codes.shape
    call("pfc_code_batch", unit, int64(batch), int64(dim), int64(padded), int64(width), codes, scales, residuals)


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
    forces = torch.empty(5, dtype=torch.float64)
    call(
        "pfc_drop_forces",
        *(dropped, push, gram, pull, centers, unit),
        *(int64(count), int64(batch), int64(dim)),
        *(weights, sample_weights, c_double(float(below)), forces),
    )
    return forces


def own_forces(
    centers: Tensor, weights: Tensor, samples: Tensor, unit: Tensor, sample_weights: Tensor, loss: SFace
) -> Tensor:
    """See :func:`partial_fc.sample_kernels_torch.own_forces`."""
    count, dim = centers.shape
    forces = torch.empty(2, dtype=torch.float64)
    call(
        "pfc_own_forces",
        *(centers, weights, samples, int64(count), unit, sample_weights, int64(dim), loss_values(loss), forces),
    )
    return forces
