"""Centers by tiles: what every loss needs for a pass over them without an N x C matrix.

Shape letters: N global batch, M samples whose own center lives here, S rows of the class shard that take part,
T rows of one tile, D embedding size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from partial_fc.host_centers import HostCenters
from partial_fc.kernels import tile_kernels_for
from partial_fc.products import add_product, product
from partial_fc.selection import Selection
from partial_fc.workspace import Workspace

NORM_FLOOR = 1e-12
CUT_HALVINGS = 12  # a negative is counted as active when its coefficient is at least scale * 2**-12
MEASURED_TILES = 8
ACTIVE = 5  # place of the number of active negatives among the moments


@dataclass
class TiledResult:
    """Sums over this rank's classes; adding them over ranks gives those of all classes that took part.

    intra, inter: mean-over-batch loss parts, float64 scalars. unit_gradient: [N, D] dL/d(unit embeddings).
    center_gradient: [S, D] dL/d(centers that took part), or None. moments: [6] float64, with q = pi/2 - theta: sum of
    positive q, number of positives, sum of negative q, sum of its squares, number of negatives and of active ones.
    coefficients: for where there is no room for center_gradient: dL/d(cosines) [T, N] of a tile, computed again.
    """

    intra: Tensor
    inter: Tensor
    unit_gradient: Tensor
    center_gradient: Tensor | None
    moments: Tensor
    coefficients: "Callable[[Tile], Tensor] | None" = None

    @classmethod
    def zeros(
        cls, unit: Tensor, centers: "Tensor | HostCenters", selection: Selection, *, with_gradient: bool
    ) -> "TiledResult":
        """Nothing summed yet. The scalars are float64: over 1e8 pairs a float32 sum loses digits that curves show."""
        # All rows of centers in host memory: a gradient of all has no more room on the device than they have.
        has_room = selection.rows is not None or not isinstance(centers, HostCenters)
        return cls(
            intra=torch.zeros((), dtype=torch.float64, device=unit.device),
            inter=torch.zeros((), dtype=torch.float64, device=unit.device),
            unit_gradient=torch.zeros_like(unit),
            center_gradient=unit.new_empty(selection.size, unit.shape[1]) if with_gradient and has_room else None,
            moments=torch.zeros(6, dtype=torch.float64, device=unit.device),
        )


@dataclass
class Tile:
    """Consecutive places [start, stop) of a selection.

    unit: [T, D] unit centers; inverse: [T, 1] inverse norms. own: (places in the tile, samples), both [m], where a
    sample meets its own center. weights: [T], or None for all 1: see :class:`Selection`. room: [T, N], for the
    cosines. kernels: what does elementwise work on tiles.
    """

    start: int
    stop: int
    unit: Tensor
    inverse: Tensor
    own: tuple[Tensor, Tensor]
    weights: Tensor | None
    room: Tensor
    kernels: ModuleType

    def cosines(self, transposed: Tensor) -> Tensor:
        """[T, N] with N unit embeddings, given as contiguous [D, N], in ``room``: valid until the next tile's.

        Centers first, and no transposition left to the product: on a CPU it takes four fifths of the time.
        """
        return product(self.unit, transposed, self.room)

    def add_gradients(self, result: TiledResult, coefficients: Tensor, unit: Tensor) -> None:
        """Add this tile's part of both gradients; coefficients: [T, N] dL/d(cosines), unit: [N, D] embeddings."""
        add_product(result.unit_gradient, coefficients.T, self.unit)
        if result.center_gradient is not None:
            self.center_gradient(coefficients, unit, result.center_gradient[self.start : self.stop])

    def center_gradient(self, coefficients: Tensor, unit: Tensor, out: Tensor) -> Tensor:
        """dL/dcenters of the tile, into ``out`` [T, D]."""
        gradient = product(coefficients, unit, out)
        self.kernels.through_unit_rows(gradient, self.unit, self.inverse)
        return gradient


def tiles(
    centers: Tensor | HostCenters, selection: Selection, tile_classes: int, batch: int, workspace: Workspace
) -> Iterator[Tile]:
    """The centers that take part, ``tile_classes`` at a time; centers: [R, D], all of this rank's; batch: N.

    A tile's unit rows are valid until the next tile, those of sampled centers until the next pass begins.
    """
    for start in range(0, selection.size, tile_classes):
        yield tile_at(centers, selection, start, min(start + tile_classes, selection.size), batch, workspace)


def tile_at(
    centers: Tensor | HostCenters, selection: Selection, start: int, stop: int, batch: int, workspace: Workspace
) -> Tile:
    """One of :func:`tiles`."""
    table = centers.table if isinstance(centers, HostCenters) else centers
    dim, dtype = table.shape[1], torch.float32 if table.dtype == torch.bfloat16 else table.dtype
    if selection.rows is None:
        rows, unit = None, workspace.take("tile unit", stop - start, dim, dtype=dtype)
    else:
        rows = selection.rows[start:stop]
        unit = workspace.take("sampled unit", selection.size, dim, dtype=dtype)[start:stop]
    inverse = unit.new_empty(stop - start, 1)
    if isinstance(centers, HostCenters):
        brought = centers.bring(rows, start, stop - start)
        kernels = tile_kernels_for(brought)
        kernels.unit_rows(brought, None, 0, NORM_FLOOR, unit, inverse)
    else:
        kernels = tile_kernels_for(centers)
        kernels.unit_rows(centers, rows, start, NORM_FLOOR, unit, inverse)
    here = (selection.places >= start) & (selection.places < stop)
    own = (selection.places[here] - start, selection.samples[here])
    weights = None if selection.weights is None else selection.weights[start:stop]
    cosines = workspace.take("tile cosines", stop - start, batch, dtype=dtype)
    return Tile(start, stop, unit, inverse, own, weights, cosines, kernels)


def normalize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Unit rows and inverse norms: [R, D], [R, 1]; a zero row gives a zero row and the inverse norm 0.

    A row without direction has no cosine gradient; 0 keeps it exactly so in every later product.
    """
    norms = rows.norm(dim=1, keepdim=True)
    inverse = torch.where(norms > NORM_FLOOR, norms.clamp_min(NORM_FLOOR).reciprocal(), 0.0)
    return rows * inverse, inverse


def through_normalization(unit_gradient: Tensor, unit: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of rows from the gradient of their unit rows: (g - (g.u)u) / |row|, all [R, D]."""
    radial = (unit_gradient * unit).sum(dim=1, keepdim=True)
    return (unit_gradient - radial * unit) * inverse


def angle_moments(cosines: Tensor, own: tuple[Tensor, Tensor], *, number: int) -> Tensor:
    """The first five ``moments`` of one tile and a 0: [6] float64, see :class:`TiledResult`; cosines: [T, N].

    Negatives lie near pi/2: counted from there, float32 sums over a tile keep the digits of their spread. Of every
    ``MEASURED_TILES`` tiles only the first (by ``number``) counts for the negatives: means over millions of pairs
    do not need the angles of all.
    """
    if number % MEASURED_TILES:
        below = cosines[own].clamp(-1.0, 1.0).arcsin_()
        moments = torch.zeros(6, dtype=torch.float64, device=cosines.device)
        moments[0], moments[1] = below.sum(dtype=torch.float64), below.numel()
        return moments
    from_right_angle = cosines.clamp(-1.0, 1.0).arcsin_()
    positive = from_right_angle[own]
    from_right_angle[own] = 0.0
    total = from_right_angle.sum(dim=1).sum(dtype=torch.float64)
    squares = torch.linalg.vector_norm(from_right_angle, dim=1).double().square_().sum()
    counts = torch.tensor([positive.numel(), cosines.numel() - positive.numel(), 0], dtype=torch.float64)
    positives, negatives, no_active = counts.to(cosines.device)
    return torch.stack([positive.sum(dtype=torch.float64), positives, total, squares, negatives, no_active])
