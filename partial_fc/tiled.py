"""One pass over this rank's centers, tile by tile: loss, gradients and statistics without a B x C matrix.

Shape letters: N global batch, R rows of this rank's class shard, T rows of one tile, D embedding size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.class_shard import ClassShard
from partial_fc.sface import SFace, angle

NORM_FLOOR = 1e-12
CUT_HALVINGS = 12  # a negative is counted as active when its coefficient is at least scale * 2**-12


@dataclass
class TiledResult:
    """Sums over this rank's classes; adding them over ranks gives those of all classes.

    intra, inter: mean-over-batch loss parts, float64 scalars. unit_gradient: [N, D] dL/d(unit embeddings).
    center_gradient: [R, D] dL/d(centers), or None. moments: [6] float64: sum of positive theta, number of
    positives, sum of negative theta, sum of its squares, number of negatives, number of active negatives.
    """

    intra: Tensor
    inter: Tensor
    unit_gradient: Tensor
    center_gradient: Tensor | None
    moments: Tensor


def normalize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows and inverse norms: [R, D], [R, 1]; a zero row gives a zero row and the inverse norm 0.

    A row without direction has no cosine gradient; 0 keeps it exactly so in every later product.
    """
    norms = rows.norm(dim=1, keepdim=True)
    inverse = torch.where(norms > NORM_FLOOR, norms.clamp_min(NORM_FLOOR).reciprocal(), torch.zeros_like(norms))
    return rows * inverse, inverse


def through_normalization(unit_gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of rows from the gradient of their unit rows: (g - (g.u)u) / |row|, all [R, D]."""
    radial = (unit_gradient * unit).sum(dim=1, keepdim=True)
    return (unit_gradient - radial * unit) * inverse


def sface_over_tiles(
    unit: Tensor,
    identities: Tensor,
    centers: Tensor,
    shard: ClassShard,
    loss: SFace,
    *,
    tile_classes: int,
    with_gradient: bool,
) -> TiledResult:
    """SFace of N unit embeddings against this rank's R centers.

    unit: [N, D] float32; identities: [N] int64 global ids; centers: [R, D] float32. Peak memory beyond the
    gradients is a few [N, T] and [T, D] buffers. Gradients are those stated by :class:`SFace`.
    """
    batch = unit.shape[0]
    # Sums in float64: over 1e8 pairs a float32 sum loses the digits that loss curves show.
    intra = torch.zeros((), dtype=torch.float64, device=unit.device)
    inter = torch.zeros_like(intra)
    moments = torch.zeros(6, dtype=torch.float64, device=unit.device)
    unit_gradient = torch.zeros_like(unit)
    center_gradient = torch.empty_like(centers) if with_gradient else None
    cut = loss.scale * 2.0**-CUT_HALVINGS
    samples, rows = shard.local_rows(identities)
    for start in range(0, len(shard), tile_classes):
        stop = min(start + tile_classes, len(shard))
        tile_unit, tile_inverse = normalize_rows(centers[start:stop])
        cosines = unit @ tile_unit.T
        here = (rows >= start) & (rows < stop)
        own = (samples[here], rows[here] - start)
        own_cosines = cosines[own]
        coefficients = loss.negative_coefficient(cosines)
        coefficients[own] = 0.0
        pulls = loss.positive_coefficient(own_cosines)
        intra -= (pulls * own_cosines).sum(dtype=torch.float64) / batch
        inter += (coefficients * cosines).sum(dtype=torch.float64) / batch
        moments += _moments(angle(cosines), angle(own_cosines), own, (coefficients >= cut).sum())
        if center_gradient is not None:
            coefficients[own] = -pulls
            coefficients /= batch
            unit_gradient.addmm_(coefficients, tile_unit)
            center_gradient[start:stop] = through_normalization(coefficients.T @ unit, tile_unit, tile_inverse)
    return TiledResult(intra, inter, unit_gradient, center_gradient, moments)


def _moments(theta: Tensor, own_theta: Tensor, own: tuple[Tensor, Tensor], active: Tensor) -> Tensor:
    theta[own] = 0.0
    positives = own_theta.numel()
    total = theta.sum(dtype=torch.float64)
    squares = theta.square_().sum(dtype=torch.float64)
    counts = torch.tensor([positives, theta.numel() - positives], dtype=torch.float64, device=theta.device)
    return torch.stack([own_theta.sum(dtype=torch.float64), counts[0], total, squares, counts[1], active.double()])
