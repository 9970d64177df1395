"""Centers by tiles: what every loss needs for a pass over them without an N x C matrix.

Shape letters: N global batch, M samples whose own center lives here, S rows of the class shard that take part,
T rows of one tile, D embedding size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.selection import Selection

NORM_FLOOR = 1e-12
CUT_HALVINGS = 12  # a negative is counted as active when its coefficient is at least scale * 2**-12
ACTIVE = 5  # place of the number of active negatives among the moments


@dataclass
class TiledResult:
    """Sums over this rank's classes; adding them over ranks gives those of all classes that took part.

    intra, inter: mean-over-batch loss parts, float64 scalars. unit_gradient: [N, D] dL/d(unit embeddings).
    center_gradient: [S, D] dL/d(centers that took part), or None. moments: [6] float64, with q = pi/2 - theta: sum of
    positive q, number of positives, sum of negative q, sum of its squares, number of negatives and of active ones.
    """

    intra: Tensor
    inter: Tensor
    unit_gradient: Tensor
    center_gradient: Tensor | None
    moments: Tensor

    @classmethod
    def zeros(cls, unit: Tensor, selection: Selection, *, with_gradient: bool) -> "TiledResult":
        """Nothing summed yet. The scalars are float64: over 1e8 pairs a float32 sum loses digits that curves show."""
        return cls(
            intra=torch.zeros((), dtype=torch.float64, device=unit.device),
            inter=torch.zeros((), dtype=torch.float64, device=unit.device),
            unit_gradient=torch.zeros_like(unit),
            center_gradient=unit.new_empty(selection.size, unit.shape[1]) if with_gradient else None,
            moments=torch.zeros(6, dtype=torch.float64, device=unit.device),
        )


@dataclass
class Tile:
    """Consecutive places [start, stop) of a selection.

    unit: [T, D] unit centers; inverse: [T, 1] inverse norms. own: (samples, columns), both [m], where a sample meets
    its own center. weights: [T], or None for all 1: see :class:`Selection`.
    """

    start: int
    stop: int
    unit: Tensor
    inverse: Tensor
    own: tuple[Tensor, Tensor]
    weights: Tensor | None

    def add_gradients(self, result: TiledResult, coefficients: Tensor, unit: Tensor) -> None:
        """Add this tile's part of both gradients; coefficients: [N, T] dL/d(cosines), unit: [N, D] embeddings."""
        assert result.center_gradient is not None, "asked for without gradients"
        result.unit_gradient.addmm_(coefficients, self.unit)
        gradient = result.center_gradient[self.start : self.stop]
        torch.mm(coefficients.T, unit, out=gradient)
        # As through_normalization, in place: [T, D] temporaries cost as much as a product.
        radial = torch.bmm(gradient[:, None, :], self.unit[:, :, None]).squeeze(2)
        gradient.addcmul_(radial, self.unit, value=-1.0).mul_(self.inverse)


def tiles(centers: Tensor, selection: Selection, tile_classes: int) -> Iterator[Tile]:
    """The centers that take part, ``tile_classes`` at a time; centers: [R, D], all of this rank's."""
    for start in range(0, selection.size, tile_classes):
        stop = min(start + tile_classes, selection.size)
        rows = centers[start:stop] if selection.rows is None else centers[selection.rows[start:stop]]
        here = (selection.places >= start) & (selection.places < stop)
        own = (selection.samples[here], selection.places[here] - start)
        weights = None if selection.weights is None else selection.weights[start:stop]
        yield Tile(start, stop, *normalize_rows(rows), own, weights)


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


def angle_moments(cosines: Tensor, own: tuple[Tensor, Tensor]) -> Tensor:
    """The first five ``moments`` of one tile and a 0: [6] float64, see :class:`TiledResult`; cosines: [N, T].

    Negatives lie near pi/2: counted from there, float32 sums over a tile keep the digits of their spread.
    """
    from_right_angle = cosines.clamp(-1.0, 1.0).arcsin_()
    positive = from_right_angle[own]
    from_right_angle[own] = 0.0
    total = from_right_angle.sum(dim=1).sum(dtype=torch.float64)
    squares = torch.linalg.vector_norm(from_right_angle, dim=1).double().square_().sum()
    counts = torch.tensor([positive.numel(), cosines.numel() - positive.numel(), 0], dtype=torch.float64)
    positives, negatives, no_active = counts.to(cosines.device)
    return torch.stack([positive.sum(dtype=torch.float64), positives, total, squares, negatives, no_active])
