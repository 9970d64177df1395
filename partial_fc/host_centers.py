"""Centers in host memory for losses that go over tiles: a tile is brought to the device, and back where it changed.

Shape letters: R rows of the class shard, T rows of a tile, D embedding size.
"""

from dataclasses import dataclass

from torch import Tensor

from partial_fc.workspace import Workspace


@dataclass(frozen=True)
class HostCenters:
    """table: [R, D] in host memory, of centers or of their momentum. workspace: of the device."""

    table: Tensor
    workspace: Workspace
    name: str = "brought centers"

    def bring(self, rows: Tensor | None, start: int, count: int) -> Tensor:
        """[T, D] on the device: ``rows`` [T] of the table, or ``count`` from ``start`` on; valid until the next."""
        here = self.workspace.take(self.name, count, self.table.shape[1], dtype=self.table.dtype)
        return here.copy_(self.table[self._places(rows, start, count)])

    def take_back(self, rows: Tensor | None, start: int, tile: Tensor) -> None:
        """Write what :meth:`bring` brought."""
        self.table[self._places(rows, start, len(tile))] = tile.to(self.table.device)

    def _places(self, rows: Tensor | None, start: int, count: int) -> Tensor | slice:
        return slice(start, start + count) if rows is None else rows.to(self.table.device)
