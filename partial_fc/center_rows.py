"""The centers of one class shard between optimizer steps: rows at rest untouched, rows in motion caught up when needed.

Shape letters: R rows of the class shard, D embedding size, N samples, P pairs, A rows touched.
"""

import math
from collections.abc import Callable, Iterator
from types import ModuleType

import torch
from torch import Tensor

from partial_fc.kernels import kernels_for
from partial_fc.momentum_slots import MomentumSlots
from partial_fc.pairs import Pairs
from partial_fc.row_tables import RowTables
from partial_fc.shared_motion import HEADROOM, SMALLEST_GAMMA, SMALLEST_SCALE, SharedMotion
from partial_fc.staged_rows import MOST_STAGED, StagedRows
from partial_fc.stochastic_rounding import CATCH_UP, FOLD, TO_REST, UPDATE, Rounding, rounding_key
from partial_fc.stored_rows import current_rows, row_chunk, store_rows
from partial_fc.tiled import NORM_FLOOR

CALM = 0.004  # rad: rows that will move by less stay where they are between touches


class CenterRows:
    """Centers w = scale * W and momentum m = carry * w + E / scale; see :mod:`partial_fc.shared_motion`.

    weights: [R, D] float32 or bfloat16, W, shared with the head's parameter. Rows with momentum are brought to now when
    they are touched, read or saved; those that will still turn by more than ``CALM`` are moved every step, so that
    their int8 codes stay sharp. All others drift within the slack that screening grants them. first_class, seed: of
    the rounding of bfloat16 rows, see :mod:`partial_fc.stochastic_rounding`. device: None where the weights lie there;
    else they lie in host memory, and rows are brought there when they are needed.
    """

    def __init__(
        self, weights: Tensor, *, first_class: int = 0, seed: int = 0, device: torch.device | None = None
    ) -> None:
        self.table = weights
        self.tables = RowTables.around(
            weights, norm_floor=NORM_FLOOR, calm=CALM, first_class=first_class, device=device
        )
        self.staged = None if device is None else StagedRows(weights, self.tables)
        self._seed = seed
        self.shared = SharedMotion()
        self.slots = MomentumSlots(self.tables)
        self._codes: Tensor | None = None

    def lie_in(self, weights: Tensor) -> None:
        """Another tensor like the one before holds the rows now."""
        self.table = weights
        if self.staged is None:
            self.tables.weights = weights
        else:
            self.staged.stored = weights
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
            self._codes = torch.zeros(len(self), tables.code_width, dtype=torch.int8, device=self.device)
        tables.codes = self._codes
        for start, count in self._ranges_in_reach(0, len(self)):
            self.kernels.encode_rows(tables, start, count)

    def forget_codes(self) -> None:
        """The rows change or have changed behind the codes' back."""
        self.tables.codes = None

    def unit_rows(self, rows: Tensor | None, start: int, unit: Tensor, inverse: Tensor) -> None:
        """Write unit rows and the inverse norms of W, of ``rows`` or from ``start`` on, into [A, D] and [A]."""
        if rows is None:
            for first, count in self._ranges_in_reach(start, len(unit)):
                here = slice(first - start, first - start + count)
                self.kernels.gather_unit(self.tables, None, first, count, unit[here], inverse[here])
        else:
            for here, part in self.in_reach(rows):
                self.kernels.gather_unit(self.tables, part, 0, len(part), unit[here], inverse[here])

    def begin_step(self, lr: float, momentum_factor: float, weight_decay: float) -> bool:
        """Take the shared part of a step. False, with nothing done, when it must be taken on dense rows."""
        shared = self.shared
        if momentum_factor != shared.factor:
            self.bring_to_now()
            if momentum_factor == 0.0:
                self.slots.clear()
            shared.start_factor(momentum_factor)
            self.refresh()
        if shared.gamma(lr, weight_decay) < SMALLEST_GAMMA:
            return False
        shared.advance(lr, weight_decay)
        if shared.bound_is_off:
            shared.bound = shared.rate * HEADROOM
            self.bring_to_now()
        return True

    def touch(self, pairs: Pairs, embeddings: Tensor) -> None:
        """Move every row that has pairs, sorted by row, with coefficients dL/dcos; embeddings: [N, D] unit."""
        rows, counts = torch.unique_consecutive(pairs.rows, return_counts=True)
        offsets = torch.zeros(len(rows) + 1, dtype=torch.int64, device=rows.device)
        torch.cumsum(counts, 0, out=offsets[1:])
        self._need_momentum(rows)
        self._round(UPDATE)
        for here, part in self.in_reach(rows, write=True):
            ends = offsets[here.start : here.stop + 1]
            self.kernels.update_rows(self.tables, part, pairs, ends, embeddings, self.shared.motion())

    def touch_range(self, start: int, sums: Tensor) -> None:
        """Move the rows from ``start`` on by sums [A, D] of dL/dcos * embedding. Codes become invalid."""
        self.forget_codes()
        rows = torch.arange(start, start + len(sums), device=sums.device)
        self._need_momentum(rows)
        self._round(UPDATE)
        for first, count in self._ranges_in_reach(start, len(sums), write=True):
            here = sums[first - start : first - start + count]
            self.kernels.update_dense(self.tables, first, here, self.shared.motion())

    def end_step(self) -> None:
        """Move restless rows that were not touched, let time pass, and let go of rows that came to rest."""
        tables, slots, shared = self.tables, self.slots, self.shared
        if tables.codes is not None and slots.used:
            waiting = tables.touched[: slots.used] <= tables.now
            restless = slots.rows_where((tables.unrest[: slots.used] > tables.calm) & waiting)
            self._round(UPDATE)
            for _, part in self.in_reach(restless, write=True):
                self.kernels.update_rows(tables, part, None, None, tables.momentum, shared.motion())
        tables.now += 1
        shared.age()
        self.refresh()
        if slots.used:
            at_rest = slots.rows_where(tables.expiry[: slots.used] <= tables.now)
            if len(at_rest):
                self._round(TO_REST)
                for _, part in self.in_reach(at_rest, write=True):
                    self.kernels.settle_rows(tables, part, shared.rest, shared.motion())
                slots.take(at_rest)
        if shared.scale < SMALLEST_SCALE:
            self._fold(SMALLEST_SCALE)  # a power of two: exact

    def bring_to_now(self) -> None:
        """Catch up every row in motion, with bounds for the present rate."""
        if self.slots.live:
            self._round(CATCH_UP)
            for _, part in self.in_reach(self.slots.owned()[1], write=True):
                self.kernels.settle_rows(self.tables, part, 0.0, self.shared.motion())

    def make_plain(self) -> None:
        """Make W the centers themselves: scale 1, every row at now. All rows of a bfloat16 table are rounded for it."""
        self.bring_to_now()
        self._fold(self.shared.scale)

    def assume_scale(self, scale: float) -> None:
        """W is about to be replaced by rows of this scale; momentum stays what it is, as of now."""
        self.bring_to_now()
        share = self.shared.scale / scale
        if share != 1.0:
            self._rescale(share)

    def read(self, rows: Tensor) -> Tensor:
        """A new [A, D] float32 tensor: centers as they stand now. Nothing here changes."""
        read = torch.empty(len(rows), self.table.shape[1], device=self.device)
        chunk = row_chunk(read)
        for here, part in self.in_reach(rows):
            for first in range(0, len(part), chunk):
                some = part[first : first + chunk]
                out = read[here.start + first :][: len(some)]
                torch.mul(current_rows(self.tables, some), self.shared.scale, out=out)
        return read

    def write(self, begin: int, centers: Tensor) -> None:
        """Replace the rows from ``begin`` on by [A, D] ``centers``, rounded to the nearest where they are rounded."""
        self.bring_to_now()
        self.forget_codes()
        self.table[begin : begin + len(centers)] = (centers / self.shared.scale).to(self.table.device)

    def stored(self, begin: int, end: int) -> Tensor:
        """A new [end - begin, D] float32 tensor: W as stored."""
        return self.table[begin:end].to(self.device, torch.float32, copy=True)

    def change(self, begin: int, values: Tensor, purpose: int) -> None:
        """Store [A, D] float32 ``values`` of W for the rows from ``begin`` on, rounded as any update."""
        self._round(purpose)
        for first, count in self._ranges_in_reach(begin, len(values), write=True):
            rows = torch.arange(first, first + count, device=self.device)
            store_rows(self.tables, rows, values[first - begin : first - begin + count])

    def momentum(self, begin: int, end: int) -> Tensor:
        """A new [end - begin, D] tensor: torch.optim.SGD's momentum buffer of these rows; make_plain() comes first."""
        tables = self.tables
        dense = self.stored(begin, end) * self.shared.carry
        slots = tables.slots[begin:end].long()
        live = (slots >= 0).nonzero().squeeze(1)
        dense[live] += tables.momentum[slots[live]]
        return dense

    def set_momentum(self, begin: int, values: Tensor) -> None:
        """Take [A, D] values as what the rows from ``begin`` on have of the momentum buffer beyond the carried part."""
        moving = values.abs().amax(dim=1).nonzero().squeeze(1)
        self._need_momentum(moving + begin)
        slots = self.tables.slots[moving + begin].long()
        self.tables.momentum[slots] = values[moving]
        self.tables.touched[slots] = self.tables.now
        self.tables.unrest[slots] = 2.0 * self.tables.calm  # restless until the next touch tells better
        self.forget_codes()

    def drop_momentum(self) -> None:
        """As for a new optimizer: all rows at now, none in motion."""
        if self.is_rounded:
            self.bring_to_now()  # the scale may stay, and no row is rounded for it
        else:
            self.make_plain()
        self.slots.clear()
        self.shared = SharedMotion(scale=self.shared.scale)
        self.refresh()

    def start_anew(self) -> None:
        """A step is taken on dense rows, all of which stand at now: they stand at the next one then."""
        self.forget_codes()
        self.tables.now += 1
        self.tables.touched[: self.slots.used] = self.tables.now

    def refresh(self) -> None:
        """Show the kernels the shared numbers."""
        tables = self.tables
        tables.travel = self.shared.ages.float().to(self.device)
        tables.decay = self.shared.decay.float().to(self.device)
        tables.norm_floor = NORM_FLOOR / self.shared.scale

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

    def _ranges_in_reach(self, start: int, count: int, *, write: bool = False) -> Iterator[tuple[int, int]]:
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

    def _need_momentum(self, rows: Tensor) -> None:
        if self.shared.factor != 0.0:
            self.slots.give(rows)

    def _round(self, purpose: int) -> None:
        """Draw anew how rows are rounded."""
        if self.is_rounded:
            key = rounding_key(self._seed, self.tables.now, purpose)
            self.tables.rounding = Rounding(key, self.tables.rounding.first_class)

    def _fold(self, share: float) -> None:
        """Move ``share`` of the common scale into the rows."""
        if share == 1.0:
            return
        if self.is_rounded and math.frexp(share)[0] != 0.5:
            chunk = row_chunk(self.table)
            for begin in range(0, len(self), chunk):
                self.change(begin, self.stored(begin, min(begin + chunk, len(self))).mul_(share), FOLD)
        else:
            self.table.mul_(share)
        self._rescale(share)

    def _rescale(self, share: float) -> None:
        self.tables.momentum[: self.slots.used].div_(share)
        self.shared.rescale(share)
        self.refresh()
