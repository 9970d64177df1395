"""Batch and sample of a step in plain PyTorch: the reference of the compiled functions, and what other devices run.

Shape letters: N global batch, M the batch padded, W code width, S sampled rows, P own pairs, D embedding size.
"""

import torch
from torch import Tensor

from partial_fc.row_kernels_torch import LARGEST_CODE, ROUNDING_SLACK
from partial_fc.sface import SFace

PADDING = -4.0  # reaches no threshold as a residual: |cos| <= 1, slack <= 1


def code_batch(unit: Tensor, codes: Tensor, scales: Tensor, residuals: Tensor) -> None:
    """Unit rows [N, D] = scale * code + residual into codes [M, W] int8, scales and bounds on |residual| [M].

    A zero row gives codes 0; rows beyond N get codes and scales 0 and residuals that reach nothing.
    """
    batch, dim = unit.shape
    codes.zero_()
    scales.zero_()
    residuals.fill_(PADDING)
    scales[:batch] = unit.abs().amax(dim=1) / LARGEST_CODE
    rounded = torch.where(scales[:batch, None] > 0.0, unit / scales[:batch, None], 0.0).round()
    residuals[:batch] = (unit - scales[:batch, None] * rounded).norm(dim=1) * 1.00001 + ROUNDING_SLACK
    codes[:batch, :dim] = rounded.to(torch.int8)


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
    """[5] float64: coherent, mass, chance, sum of d*c and center force of :class:`partial_fc.drop_sample.DropSums`.

    dropped: [S, N], the coefficients d below the cut. push [N, D], gram [N, N] and pull [S, D]: products of its
    transpose with centers [S, D] and with itself, and of it with unit embeddings [N, D]. weights: [S], sample_weights:
    [N], inverse norms. below: sum of d^2 sin^2 / |x|^2, what single pairs make of ``coherent``.
    """
    squares, of_samples = weights.double().square(), sample_weights.double().square()
    radial = torch.linalg.vecdot(push, unit).double()
    coherent = torch.dot(of_samples, squared_norms(push, 1) - radial.square()) - below
    mass = torch.dot(of_samples, dropped.sum(dim=0, dtype=torch.float64).square() - squared_norms(dropped, 0))
    together = squared_norms(gram * sample_weights[:, None] * sample_weights, None)
    chance = 2.0 * (together - squared_norms(dropped * sample_weights, 1).square().sum()).clamp_min(0.0)
    tangential = squared_norms(pull, 1) - torch.linalg.vecdot(pull, centers).double().square()
    return torch.stack([coherent, mass, chance, radial.sum(), torch.dot(squares, tangential.clamp_min(0.0))])


def own_forces(
    centers: Tensor, weights: Tensor, samples: Tensor, unit: Tensor, sample_weights: Tensor, loss: SFace
) -> Tensor:
    """[2] float64: coefficient^2 sin^2 of own pairs over |x|^2 and over |w|^2.

    centers: [P, D] unit, weights: [P] inverse norms; samples: [P], whose they are, of unit embeddings [N, D].
    """
    cosines = torch.linalg.vecdot(centers, unit[samples])
    force = loss.positive_coefficient(cosines).double() ** 2 * (1.0 - cosines.double() ** 2).clamp_min(0.0)
    squares = sample_weights[samples].double().square()
    return torch.stack([torch.dot(force, squares), torch.dot(force, weights.double().square())])


def squared_norms(tensor: Tensor, dim: int | None) -> Tensor:
    """Sums of squares along ``dim``, or of all, in float64 without a copy in it."""
    norms: Tensor = torch.linalg.vector_norm(tensor, dim=dim, dtype=torch.float64)
    return norms.square()
