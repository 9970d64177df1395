"""Elementwise work on tiles in plain PyTorch: the reference of the compiled one, and what other devices run.

Shape letters: R rows of a table, T rows of a tile, N global batch, D embedding size.
"""

import torch
from torch import Tensor

from partial_fc.stochastic_rounding import Rounding, round_rows

NO_ROUNDING = Rounding(0)  # of float32


def unit_rows(table: Tensor, rows: Tensor | None, start: int, norm_floor: float, unit: Tensor, inverse: Tensor) -> None:
    """Write unit rows [T, D] and inverse norms [T, 1] of ``rows`` [T] of the table [R, D], or those from ``start`` on.

    A row without direction (norm at most ``norm_floor``) gives a zero row and the inverse norm 0.
    """
    if table.dtype == torch.bfloat16:
        weights = unit.copy_(table[start : start + len(unit)] if rows is None else table[rows])
    else:
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
    rounding: Rounding = NO_ROUNDING,
) -> None:
    """torch.optim.SGD in place on ``rows`` [T] of weights [R, D], or on those from ``start`` on; gradient: [T, D].

    momentum: [R, D], or None where its factor is 0. rounding: of weights in bfloat16.
    """
    places = slice(start, start + len(gradient)) if rows is None else rows
    half = weights.dtype == torch.bfloat16
    held = weights[places].float() if half else weights[places]
    direction = gradient.add(held, alpha=weight_decay)
    if momentum is not None:
        direction = momentum[places].mul_(momentum_factor).add_(direction)
        momentum[places] = direction
    moved = held.sub_(direction, alpha=lr)
    if half:
        numbers = torch.arange(start, start + len(gradient), device=moved.device) if rows is None else rows
        classes = numbers + rounding.first_class if rounding.classes is None else rounding.classes
        moved = round_rows(moved, rounding, classes)
    weights[places] = moved
