"""Centers in host memory for losses that go over tiles: a tile is brought to the device, and back where it changed.

Shape letters: R rows of the class shard, T rows of a tile, D embedding size.
"""

from torch import Tensor

from partial_fc.host_rows import HostRows
from partial_fc.workspace import Workspace


class HostCenters:
    """table: [R, D] in host memory, of centers or of their momentum. workspace: of the device."""

    def __init__(self, table: Tensor, workspace: Workspace, name: str = "brought centers") -> None:
        self.table = table
        self._workspace = workspace
        self._name = name
        self._rows = HostRows(table, workspace.device)

    def bring(self, rows: Tensor | None, start: int, count: int) -> Tensor:
        """[T, D] on the device: ``rows`` [T] of the table, or ``count`` from ``start`` on; valid until the next."""
        here = self._workspace.take(self._name, count, self.table.shape[1], dtype=self.table.dtype)
        if rows is None:
            return here.copy_(self.table[start : start + count])
        self._rows.fetch(rows, here)
        return here

    def take_back(self, rows: Tensor | None, start: int, tile: Tensor) -> None:
        """Write what :meth:`bring` brought."""
        if rows is None:
            self.table[start : start + len(tile)] = tile.to(self.table.device)
        else:
            self._rows.put(rows, tile)
