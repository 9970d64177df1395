"""Centers in host memory: rows that are needed come to the device, a few at a time, and those that changed go back.

Kernels find a staged row through ``RowTables.places``, so they do on it just what they do on one that always lies on
the device. On the CPU both memories are the same, and rows are copied all the same.
Shape letters: R rows of the class shard, D embedding size, A rows staged.
"""

import torch
from torch import Tensor

from partial_fc.host_rows import HostRows
from partial_fc.row_tables import RowTables

MOST_STAGED = 16384  # rows at a time, where there is a choice: 32 MiB of 512 float32


class StagedRows:
    """stored: [R, D] in host memory, pinned where the device is a GPU; ``tables.weights`` holds what is staged."""

    def __init__(self, stored: Tensor, tables: RowTables) -> None:
        self._tables = tables
        self._device = tables.slots.device
        self.lie_in(stored)
        tables.places = torch.zeros(len(stored), dtype=torch.int32, device=self._device)
        self._room = stored.new_empty(0, stored.shape[1], device=self._device)
        self._rows: Tensor | slice = slice(0, 0)  # staged now
        tables.weights = self._room

    def lie_in(self, stored: Tensor) -> None:
        """Another table like the one before holds the rows now."""
        # With versions of its own: by the parameter's the head knows what others wrote, and codes all rows anew.
        self.stored = stored.data
        self._host_rows = HostRows(self.stored, self._device)

    @property
    def nbytes(self) -> int:
        """On the device."""
        places = self._tables.places
        return self._room.nbytes + (0 if places is None else places.nbytes)

    def fetch(self, rows: Tensor) -> None:
        """Stage ``rows`` [A] int64, each once, in this order."""
        self._rows = rows
        self._host_rows.fetch(rows, self._take(len(rows)))
        assert self._tables.places is not None, "set when this was made"
        self._tables.places[rows] = torch.arange(len(rows), dtype=torch.int32, device=self._device)

    def fetch_range(self, start: int, count: int) -> None:
        """Stage ``count`` rows from ``start`` on."""
        self._rows = slice(start, start + count)
        self._take(count).copy_(self.stored[self._rows], non_blocking=True)
        assert self._tables.places is not None, "set when this was made"
        self._tables.places[self._rows] = torch.arange(count, dtype=torch.int32, device=self._device)

    def put_back(self) -> None:
        """Write the staged rows to where they were fetched."""
        staged = self._tables.weights
        if isinstance(self._rows, slice):
            self.stored[self._rows].copy_(staged)
            return
        self._host_rows.put(self._rows, staged)

    def _take(self, count: int) -> Tensor:
        if len(self._room) < count:
            self._tables.weights = self._room = self._room.new_empty(0, self._room.shape[1])
            self._room = self.stored.new_empty(count, self.stored.shape[1], device=self._device)
        self._tables.weights = self._room[:count]
        return self._tables.weights
