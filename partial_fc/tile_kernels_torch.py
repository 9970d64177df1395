"""Elementwise work on tiles in plain PyTorch: the reference of the compiled one, and what other devices run.

Shape letters: R rows of a table, T rows of a tile, N global batch, D embedding size.
"""

import torch
from torch import Tensor


def unit_rows(table: Tensor, rows: Tensor | None, start: int, norm_floor: float, unit: Tensor, inverse: Tensor) -> None:
    """Write unit rows [T, D] and inverse norms [T, 1] of ``rows`` [T] of the table [R, D], or those from ``start`` on.

    A row without direction (norm at most ``norm_floor``) gives a zero row and the inverse norm 0.
    """
    weights = table[start : start + len(unit)] if rows is None else torch.index_select(table, 0, rows, out=unit)
    norms = weights.norm(dim=1, keepdim=True)
    inverse.copy_(torch.where(norms > norm_floor, norms.clamp_min(norm_floor).reciprocal(), 0.0))
    torch.mul(weights, inverse, out=unit)


def add_exponentials(cosines: Tensor, scale: float, maxima: Tensor, sums: Tensor) -> None:
    """Streaming log-sum-exp: maxima [N] and sums [N] of exp(scale * c - maximum) take up one more tile [T, N].

    The tile's values are lost.
    """
    higher = torch.maximum(maxima, cosines.amax(dim=0) * scale)
    sums *= torch.exp(maxima - higher)
    sums += torch.add(-higher, cosines, alpha=scale, out=cosines).exp_().sum(dim=0)
    maxima.copy_(higher)


def softmax_coefficients(cosines: Tensor, scale: float, offsets: Tensor, cut: float) -> Tensor | int:
    """Turn cosines [T, N] into exp(scale * c + offset) in place; offsets: [N]. Returns how many reach ``cut``."""
    torch.add(offsets, cosines, alpha=scale, out=cosines).exp_()
    return torch.count_nonzero(cosines >= cut)


def through_unit_rows(gradient: Tensor, unit: Tensor, inverse: Tensor) -> None:
    """Turn gradients [T, D] of unit rows [T, D] into those of the rows, in place: (g - (g.u)u) / |row|."""
    radial = torch.bmm(gradient[:, None, :], unit[:, :, None]).squeeze(2)  # without a [T, D] temporary
    gradient.addcmul_(radial, unit, value=-1.0).mul_(inverse)


def sgd_rows(
    weights: Tensor,
    momentum: Tensor | None,
    rows: Tensor | None,
    start: int,
    gradient: Tensor,
    lr: float,
    momentum_factor: float,
    weight_decay: float,
) -> None:
    """torch.optim.SGD in place on ``rows`` [T] of weights [R, D], or on those from ``start`` on; gradient: [T, D].

    momentum: [R, D], or None where its factor is 0.
    """
    places = slice(start, start + len(gradient)) if rows is None else rows
    held = weights[places]
    direction = gradient.add(held, alpha=weight_decay)
    if momentum is not None:
        direction = momentum[places].mul_(momentum_factor).add_(direction)
        momentum[places] = direction
    weights[places] = held.sub_(direction, alpha=lr)
