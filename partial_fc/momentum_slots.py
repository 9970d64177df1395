"""Which rows have momentum, and where it is kept: only rows in motion take a place.

Shape letters: R rows of the class shard, D embedding size, K slots.
"""

import torch
from torch import Tensor

from partial_fc.pages import prefer_huge_pages, return_pages
from partial_fc.row_tables import NO_SLOT, RowTables

NEVER = torch.iinfo(torch.int32).max
NOBODY = -1
FEWEST = 4096  # slots below which compaction is not worth a thought
GROWTH = 1.25


class MomentumSlots:
    """Gives and takes back places in the [K, D] momentum of ``tables``.

    On the CPU all R places are reserved at once: the kernel backs a page with memory when it is first written, so only
    used places cost anything, and places given back at the end are returned to it. On a GPU the array grows.
    """

    def __init__(self, tables: RowTables) -> None:
        self._tables = tables
        self._device = tables.slots.device
        self.owner = torch.empty(0, dtype=torch.int64, device=self._device)  # [K] row of each slot, -1: free
        self._free = torch.empty(0, dtype=torch.int64, device=self._device)
        self.used = 0  # slots [0, used) have been given out; some may be free again

    @property
    def live(self) -> int:
        """Rows that have momentum."""
        return self.used - len(self._free)

    def owned(self) -> tuple[Tensor, Tensor]:
        """Slots in use and their rows, both int64, by slot."""
        slots = (self.owner[: self.used] != NOBODY).nonzero().squeeze(1)
        return slots, self.owner[slots]

    def rows_where(self, mask: Tensor) -> Tensor:
        """Rows of the slots that ``mask`` [used] bool marks; nobody's slot expires or is restless."""
        return self.owner[: self.used][mask]

    def give(self, rows: Tensor) -> None:
        """Make sure that each of ``rows`` (unique) has a slot; a new one holds zeros and is current."""
        tables = self._tables
        rows = rows[tables.slots[rows] == NO_SLOT]
        if not len(rows):
            return
        again = min(len(rows), len(self._free))
        fresh = len(rows) - again
        self._grow(self.used + fresh)
        slots = torch.cat(
            [
                self._free[len(self._free) - again :],
                torch.arange(self.used, self.used + fresh, device=self._device),
            ]
        )
        self._free = self._free[: len(self._free) - again]
        self.used += fresh
        tables.slots[rows] = slots.int()
        self.owner[slots] = rows
        tables.touched[slots] = tables.now
        tables.expiry[slots] = NEVER
        tables.unrest[slots] = 0.0
        tables.momentum.index_fill_(0, slots, 0.0)

    def take(self, rows: Tensor) -> None:
        """End the momentum of ``rows``, which all have a slot."""
        tables = self._tables
        slots = tables.slots[rows].long()
        tables.slots[rows] = NO_SLOT
        self.owner[slots] = NOBODY
        tables.expiry[slots] = NEVER
        tables.unrest[slots] = 0.0
        self._free = torch.cat([self._free, slots])
        if self.used > FEWEST and self.live < self.used // 2:
            self._compact()

    def clear(self) -> None:
        """Nobody has momentum any more; the memory goes back."""
        tables = self._tables
        tables.slots.fill_(NO_SLOT)
        tables.momentum = tables.momentum.new_empty(0, tables.weights.shape[1])
        for name in ("touched", "expiry", "unrest"):
            setattr(tables, name, getattr(tables, name).new_empty(0))
        self.owner = self.owner.new_empty(0)
        self._free = self._free.new_empty(0)
        self.used = 0

    def _grow(self, needed: int) -> None:
        tables = self._tables
        capacity = len(self.owner)
        if needed <= capacity:
            return
        rows = len(tables.slots)
        wanted = rows if self._device.type == "cpu" else min(rows, max(needed, FEWEST, int(capacity * GROWTH)))
        tables.momentum = self._longer(tables.momentum, wanted)
        if self._device.type == "cpu":
            return_pages(tables.momentum[self.used :])  # which may lie where something else was, all of it in memory
        tables.touched = self._longer(tables.touched, wanted)
        tables.expiry = self._longer(tables.expiry, wanted)
        tables.unrest = self._longer(tables.unrest, wanted)
        self.owner = self._longer(self.owner, wanted)

    def _longer(self, tensor: Tensor, length: int) -> Tensor:
        longer = prefer_huge_pages(tensor.new_empty(length, *tensor.shape[1:]))
        longer[: self.used] = tensor[: self.used]
        return longer

    def _compact(self) -> None:
        """Move the last slots in use into the holes before them and give the rest of the memory back."""
        tables = self._tables
        live = self.live
        holes = (self.owner[:live] == NOBODY).nonzero().squeeze(1)
        movers = (self.owner[live : self.used] != NOBODY).nonzero().squeeze(1) + live
        for name in ("momentum", "touched", "expiry", "unrest"):
            array = getattr(tables, name)
            for begin in range(0, len(holes), FEWEST):
                array[holes[begin : begin + FEWEST]] = array[movers[begin : begin + FEWEST]]
        self.owner[holes] = self.owner[movers]
        tables.slots[self.owner[holes]] = holes.int()
        self._free = self._free.new_empty(0)
        self.used = live
        if self._device.type == "cpu":
            return_pages(tables.momentum[live:])
