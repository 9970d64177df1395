"""The table of one shard's centers, wherever it lies, with the int8 copy that screening reads.

Shape letters: R rows of the class shard, D embedding size, A rows.
"""

from collections.abc import Callable, Iterator
from types import ModuleType

import torch
from torch import Tensor

from partial_fc.kernels import kernels_for
from partial_fc.pages import prefer_huge_pages
from partial_fc.row_tables import RowTables
from partial_fc.staged_rows import MOST_STAGED, StagedRows
from partial_fc.stochastic_rounding import Rounding, rounding_key
from partial_fc.stored_rows import store_rows
from partial_fc.tiled import NORM_FLOOR

CALM = 0.016  # rad: rows that will move by less stay where they are between touches


class CenterTable:
    """table: [R, D] float32 or bfloat16, the head's parameter. tables: what kernels work on.

    first_class, seed: of the rounding of bfloat16 rows, see :mod:`partial_fc.stochastic_rounding`. device: None where
    the table lies there; else it lies in host memory, and rows are brought there when they are needed.
    """

    def __init__(self, table: Tensor, *, first_class: int, seed: int, device: torch.device | None) -> None:
        self.table = table
        self.tables = RowTables.around(table, norm_floor=NORM_FLOOR, calm=CALM, first_class=first_class, device=device)
        self.staged = None if device is None else StagedRows(table, self.tables)
        self._seed = seed
        self._codes: Tensor | None = None

    def lie_in(self, weights: Tensor) -> None:
        """Another tensor like the one before holds the rows now."""
        self.table = weights
        if self.staged is None:
            self.tables.weights = weights
        else:
            self.staged.lie_in(weights)
        self.forget_codes()

    def __len__(self) -> int:
        return len(self.tables.slots)

    @property
    def is_rounded(self) -> bool:
        """Whether what is stored has fewer digits than what is computed."""
        return self.table.dtype == torch.bfloat16

    @property
    def kernels(self) -> ModuleType:
        """Not kept: modules cannot be copied, and heads are."""
        return kernels_for(self.device)

    @property
    def device(self) -> torch.device:
        """Where all but the stored rows are, and everything is computed."""
        return self.tables.slots.device

    @property
    def code_bytes(self) -> int:
        """Memory of the int8 codes, valid or not."""
        return 0 if self._codes is None else self._codes.numel()

    def encode(self) -> None:
        """Make the int8 codes valid, if they are not."""
        tables = self.tables
        if tables.codes is not None:
            return
        if self._codes is None:
            codes = torch.empty(len(self), tables.code_width, dtype=torch.int8, device=self.device)
            self._codes = prefer_huge_pages(codes).zero_()
        tables.codes = self._codes
        for start, count in self.ranges_in_reach(0, len(self)):
            self.kernels.encode_rows(tables, start, count)

    def forget_codes(self) -> None:
        """The rows change or have changed behind the codes' back."""
        self.tables.codes = None

    def unit_rows(self, rows: Tensor | None, start: int, unit: Tensor, inverse: Tensor) -> None:
        """Write unit rows and the inverse norms of W, of ``rows`` or from ``start`` on, into [A, D] and [A]."""
        if rows is None:
            for first, count in self.ranges_in_reach(start, len(unit)):
                here = slice(first - start, first - start + count)
                self.kernels.gather_unit(self.tables, None, first, count, unit[here], inverse[here])
        else:
            for here, part in self.in_reach(rows):
                self.kernels.gather_unit(self.tables, part, 0, len(part), unit[here], inverse[here])

    def stored(self, begin: int, end: int) -> Tensor:
        """A new [end - begin, D] float32 tensor: W as stored."""
        return self.table[begin:end].to(self.device, torch.float32, copy=True)

    def change(self, begin: int, values: Tensor, purpose: int) -> None:
        """Store [A, D] float32 ``values`` of W for the rows from ``begin`` on, rounded as any update."""
        self.draw_rounding(purpose)
        for first, count in self.ranges_in_reach(begin, len(values), write=True):
            rows = torch.arange(first, first + count, device=self.device)
            store_rows(self.tables, rows, values[first - begin : first - begin + count])

    @property
    def fetch(self) -> Callable[[Tensor], None] | None:
        """Brings rows [A] to where kernels find them, in any number; None where they always do."""
        return None if self.staged is None else self.staged.fetch

    def in_reach(self, rows: Tensor, *, write: bool = False) -> Iterator[tuple[slice, Tensor]]:
        """``rows`` in parts that kernels find in the tables, and where among the rows each lies. write: they change."""
        if self.staged is None:
            yield slice(0, len(rows)), rows
            return
        for begin in range(0, len(rows), MOST_STAGED):
            part = rows[begin : begin + MOST_STAGED]
            self.staged.fetch(part)
            yield slice(begin, begin + len(part)), part
            if write:
                self.staged.put_back()

    def ranges_in_reach(self, start: int, count: int, *, write: bool = False) -> Iterator[tuple[int, int]]:
        """The same for ``count`` rows from ``start`` on: (first row, rows)."""
        if self.staged is None:
            yield start, count
            return
        for begin in range(start, start + count, MOST_STAGED):
            size = min(MOST_STAGED, start + count - begin)
            self.staged.fetch_range(begin, size)
            yield begin, size
            if write:
                self.staged.put_back()

    def draw_rounding(self, purpose: int) -> None:
        """Draw anew how rows are rounded."""
        if self.is_rounded:
            key = rounding_key(self._seed, self.tables.now, purpose)
            self.tables.rounding = Rounding(key, self.tables.rounding.first_class)
