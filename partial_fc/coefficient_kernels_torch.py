"""Cosines of whole tiles into SFace's coefficients, in plain PyTorch.

Shape letters: N global batch, T rows of a tile, S sampled rows, L levels.
"""

import math

import torch
from torch import Tensor

from partial_fc.sface import SFace, angle

OWN_PAIR = -2.0  # stands for the cosine of an own pair in a sample


def dense_coefficients(
    cosines: Tensor, own: tuple[Tensor, Tensor], loss: SFace, cut: float, sums: Tensor | None
) -> None:
    """Turn cosines [T, N] into coefficients in place; own pairs (rows within the tile, samples) get minus their pull.

    sums: [7] float64 or None: inter- and intra-class loss, negatives that reach ``cut``, own pairs' pi/2 - theta,
    negatives' pi/2 - theta and its square, own pairs.
    """
    own_cosines = cosines[own]
    coefficients = loss.negative_coefficient(cosines)
    coefficients[own] = 0.0
    pulls = loss.positive_coefficient(own_cosines)
    if sums is not None:
        below = math.pi / 2 - angle(cosines)
        own_angles = below[own].sum(dtype=torch.float64)
        below[own] = 0.0
        sums += torch.stack(
            [
                torch.linalg.vecdot(coefficients, cosines).sum(dtype=torch.float64),
                -(pulls * own_cosines).sum(dtype=torch.float64),
                torch.count_nonzero(coefficients >= cut).double(),
                own_angles,
                below.sum(dim=1).sum(dtype=torch.float64),
                torch.linalg.vector_norm(below, dim=1).double().square().sum(),
                torch.full((), len(pulls), dtype=torch.float64, device=sums.device),
            ]
        )
    cosines.copy_(coefficients)
    cosines[own] = -pulls


def sample_levels(
    cosines: Tensor, inverses: Tensor, sample_inverses: Tensor, loss: SFace, cut: float, levels: Tensor, sums: Tensor
) -> None:
    """What a sample of centers says of all negatives; cosines [S, N] become the coefficients below ``cut``, else 0.

    Entries of -2 are own pairs, left out. levels: [L, 4] float64 takes pairs, coefficients, coefficient^2 sin^2 / |x|^2
    and coefficient^2 sin^2 / |weights|^2 by half octaves of coefficient / scale, borders at 1 and 1.5 times powers
    of two, largest first; the last takes everything smaller. sums: [3] float64, negatives, their pi/2 - theta and its
    square. inverses: [S] of the centers' norms, sample_inverses: [N] of the embeddings'.
    """
    negative = cosines > OWN_PAIR + 0.5
    coefficients = torch.where(negative, loss.negative_coefficient(cosines), 0.0)
    below = torch.where(negative, math.pi / 2 - angle(cosines), 0.0).double()
    sums += torch.stack([negative.sum(), below.sum(), below.square().sum()])
    codes = (coefficients / loss.scale).view(torch.int32) >> 22
    place = (253 - codes).clamp_(0, len(levels) - 1)[negative].long()
    force = coefficients.double() ** 2 * (1.0 - cosines.double() ** 2).clamp_min(0.0)
    columns = (
        torch.ones_like(force),
        coefficients.double(),
        force * sample_inverses.double() ** 2,
        force * inverses.double()[:, None] ** 2,
    )
    for column, values in enumerate(columns):
        levels[:, column] += torch.bincount(place, values[negative], minlength=len(levels))
    cosines.copy_(torch.where(coefficients < cut, coefficients, 0.0))
