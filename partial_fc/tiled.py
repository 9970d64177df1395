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

    batch: of the step. unit: [T, D] unit centers; inverse: [T, 1] inverse norms. own: (places in the tile, samples),
    both [m], where a sample meets its own center. weights: [T], or None for all 1: see :class:`Selection`. room:
    [T, N], for the cosines. kernels: what does elementwise work on tiles.
    """

    batch: "TileBatch"
    start: int
    stop: int
    unit: Tensor
    inverse: Tensor
    own: tuple[Tensor, Tensor]
    weights: Tensor | None
    room: Tensor
    kernels: ModuleType

    def cosines(self) -> Tensor:
        """[T, N] with the batch's embeddings, in ``room``: valid until the next tile's."""
        return self.batch.cosines(self)

    def add_gradients(self, result: TiledResult, coefficients: Tensor) -> None:
        """Add this tile's part of both gradients; coefficients: [T, N] dL/d(cosines)."""
        out = None if result.center_gradient is None else result.center_gradient[self.start : self.stop]
        self.batch.add_gradients(self, coefficients, result.unit_gradient, out)

    def center_gradient(self, coefficients: Tensor, out: Tensor) -> Tensor:
        """dL/dcenters of the tile, into ``out`` [T, D]."""
        return self.batch.center_gradient(self, coefficients, out)


class TileBatch:
    """A step's N unit embeddings [N, D], and the products of tiles with them, in their own type."""

    def __init__(self, unit: Tensor) -> None:
        self.unit = unit
        self._transposed = unit.T.contiguous()

    def room(self, workspace: Workspace, name: str, rows: int) -> Tensor:
        """[rows, D] for unit centers, as :meth:`fill` writes them."""
        return workspace.take(name, rows, self.unit.shape[1], dtype=self.unit.dtype)

    def fill(
        self, kernels: ModuleType, table: Tensor, rows: Tensor | None, start: int, unit: Tensor, inverse: Tensor
    ) -> None:
        """Unit centers and inverse norms of ``rows`` [T] of the table, or of those from ``start`` on."""
        kernels.unit_rows(table, rows, start, NORM_FLOOR, unit, inverse)

    def cosines(self, tile: Tile) -> Tensor:
        """See :meth:`Tile.cosines`.

        Centers first, and no transposition left to the product: on a CPU it takes four fifths of the time.
        """
        return product(tile.unit, self._transposed, tile.room)

    def add_gradients(
        self, tile: Tile, coefficients: Tensor, unit_gradient: Tensor, center_gradient: Tensor | None
    ) -> None:
        """Add to the embeddings' gradient [N, D], and write that of the tile's centers [T, D] where it is wanted."""
        add_product(unit_gradient, coefficients.T, tile.unit)
        if center_gradient is not None:
            self.center_gradient(tile, coefficients, center_gradient)

    def center_gradient(self, tile: Tile, coefficients: Tensor, out: Tensor) -> Tensor:
        """See :meth:`Tile.center_gradient`."""
        product(coefficients, self.unit, out)
        tile.kernels.through_unit_rows(out, tile.unit, tile.inverse)
        return out


@dataclass(frozen=True)
class OwnPairs:
    """Where samples meet their own centers, by tiles of ``tile_classes`` places, sorted once: a GPU that is asked tile
    by tile stops at each. places, samples: [M], sorted by place. edges: of the tiles among them.
    """

    tile_classes: int
    places: Tensor
    samples: Tensor
    edges: list[int]

    @classmethod
    def of(cls, selection: Selection, tile_classes: int) -> "OwnPairs":
        """Of all tiles of a selection."""
        places, order = selection.places.sort(stable=True)
        starts = torch.arange(0, selection.size + tile_classes, tile_classes, device=places.device)
        edges = torch.searchsorted(places, starts).tolist()
        return cls(tile_classes, places, selection.samples[order], edges)

    def at(self, start: int) -> tuple[Tensor, Tensor]:
        """(places in the tile, samples) of the tile that begins at ``start``."""
        number = start // self.tile_classes
        here = slice(self.edges[number], self.edges[number + 1])
        return self.places[here] - start, self.samples[here]


def tiles(
    centers: Tensor | HostCenters, selection: Selection, own: OwnPairs, batch: TileBatch, workspace: Workspace
) -> Iterator[Tile]:
    """The centers that take part, a tile of ``own`` at a time; centers: [R, D], all of this rank's.

    A tile's unit rows are valid until the next tile, those of sampled centers until the next pass begins.
    """
    for start in range(0, selection.size, own.tile_classes):
        yield tile_at(centers, selection, own, start, batch, workspace)


def tile_at(
    centers: Tensor | HostCenters,
    selection: Selection,
    own: OwnPairs,
    start: int,
    batch: TileBatch,
    workspace: Workspace,
) -> Tile:
    """The one of :func:`tiles` that begins at ``start``."""
    stop = min(start + own.tile_classes, selection.size)
    if selection.rows is None:
        rows, unit = None, batch.room(workspace, "tile unit", stop - start)
    else:
        rows = selection.rows[start:stop]
        unit = batch.room(workspace, "sampled unit", selection.size)[start:stop]
    inverse = batch.unit.new_empty(stop - start, 1)
    if isinstance(centers, HostCenters):
        brought = centers.bring(rows, start, stop - start)
        kernels = tile_kernels_for(brought)
        batch.fill(kernels, brought, None, 0, unit, inverse)
    else:
        kernels = tile_kernels_for(centers)
        batch.fill(kernels, centers, rows, start, unit, inverse)
    weights = None if selection.weights is None else selection.weights[start:stop]
    cosines = workspace.take("tile cosines", stop - start, len(batch.unit), dtype=batch.unit.dtype)
    return Tile(batch, start, stop, unit, inverse, own.at(start), weights, cosines, kernels)


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

    Of every ``MEASURED_TILES`` tiles only the first (by ``number``) counts for the negatives: means over millions of
    pairs do not need the angles of all.
    """
    moments = positive_moments(cosines[own])
    return moments if number % MEASURED_TILES else moments + negative_moments(cosines, own)


def positive_moments(own_cosines: Tensor) -> Tensor:
    """Those of positive pairs; own_cosines: [m]."""
    below = own_cosines.clamp(-1.0, 1.0).arcsin_()
    moments = torch.zeros(6, dtype=torch.float64, device=below.device)
    moments[0], moments[1] = below.sum(dtype=torch.float64), below.numel()
    return moments


def negative_moments(cosines: Tensor, own: tuple[Tensor, Tensor]) -> Tensor:
    """Those of negative pairs.

    Negatives lie near pi/2: counted from there, float32 sums over a tile keep the digits of their spread.
    """
    from_right_angle = cosines.clamp(-1.0, 1.0).arcsin_()
    from_right_angle[own] = 0.0
    moments = torch.zeros(6, dtype=torch.float64, device=cosines.device)
    moments[2] = from_right_angle.sum(dim=1).sum(dtype=torch.float64)
    moments[3] = torch.linalg.vector_norm(from_right_angle, dim=1).double().square_().sum()
    moments[4] = cosines.numel() - len(own[0])
    return moments
