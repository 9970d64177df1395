"""The gradient of all centers without a [R, D] tensor, for losses that go over tiles: each is computed when it is due.

For centers in host memory: on the device there is as little room for their gradient as for them, and to bring it from
host memory would take longer than the product that makes it anew.
Shape letters: N global batch, R rows of the class shard, T rows of a tile, D embedding size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from partial_fc.host_centers import HostCenters
from partial_fc.row_gradient import RowGradient
from partial_fc.selection import Selection
from partial_fc.tiled import OwnPairs, Tile, TileBatch, tile_at
from partial_fc.workspace import Workspace


@dataclass(frozen=True)
class TiledPart:
    """One micro-batch. coefficients: dL/d(cosines) [T, N] of a tile. factor: a scalar."""

    coefficients: Callable[[Tile], Tensor]
    batch: TileBatch
    selection: Selection
    own: OwnPairs
    factor: Tensor | None = None


@dataclass
class TiledGradient:
    """Their sum is the gradient, of the centers as they are until the optimizer moves them."""

    parts: list[TiledPart]
    centers: HostCenters
    workspace: Workspace
    tile_classes: int

    def plus(self, other: "TiledGradient | RowGradient", total_rows: int) -> "TiledGradient | RowGradient":
        """Both together; total_rows: R."""
        if isinstance(other, RowGradient):  # of a sampled micro-batch
            return RowGradient(None, self.dense(total_rows)).plus(other, total_rows)
        self.parts.extend(other.parts)
        return self

    def scale_(self, factor: Tensor) -> None:
        """Multiply by a scalar, before anything is added."""
        self.parts = [replace(part, factor=factor) for part in self.parts]

    def tiles(self) -> Iterator[tuple[int, Tensor]]:
        """(start, dL/dcenters [T, D]) of all rows, tile by tile, valid until the next."""
        rows = len(self.centers.table)
        for start in range(0, rows, self.tile_classes):
            yield start, self._tile(start, min(start + self.tile_classes, rows))

    def dense(self, total_rows: int) -> Tensor:
        """As a new [R, D] tensor on the device."""
        unit = self.parts[0].batch.unit
        gradient = unit.new_empty(total_rows, unit.shape[1])
        for start, tile in self.tiles():
            gradient[start : start + len(tile)] = tile
        return gradient

    def _tile(self, start: int, stop: int) -> Tensor:
        total: Tensor | None = None
        for part in self.parts:
            tile = tile_at(self.centers, part.selection, part.own, start, part.batch, self.workspace)
            name = "tile gradient" if total is None else "one more tile gradient"
            room = self.workspace.take(name, stop - start, part.batch.unit.shape[1])
            gradient = tile.center_gradient(part.coefficients(tile), room)
            if part.factor is not None:
                gradient.mul_(part.factor)
            total = gradient if total is None else total.add_(gradient)
        assert total is not None, "a gradient has parts"
        return total
