"""The centers of one class shard between optimizer steps: rows at rest untouched, rows in motion caught up when needed.

Shape letters: R rows of the class shard, D embedding size, N samples, P pairs, A rows touched.
"""

import math

import torch
from torch import Tensor

from partial_fc.center_table import CenterTable
from partial_fc.momentum_slots import MomentumSlots
from partial_fc.pairs import Pairs
from partial_fc.shared_motion import HEADROOM, SMALLEST_GAMMA, SMALLEST_SCALE, SharedMotion
from partial_fc.stochastic_rounding import CATCH_UP, FOLD, TO_REST, UPDATE
from partial_fc.stored_rows import current_rows, row_chunk
from partial_fc.tiled import NORM_FLOOR


class CenterRows(CenterTable):
    """Centers w = scale * W and momentum m = carry * w + E / scale; see :mod:`partial_fc.shared_motion`.

    The table holds W. Rows with momentum are brought to now when they are touched, read or saved; those that will still
    turn by more than ``CALM`` are moved every step, so that their int8 codes stay sharp. All others drift within the
    slack that screening grants them.
    """

    def __init__(
        self, table: Tensor, *, first_class: int = 0, seed: int = 0, device: torch.device | None = None
    ) -> None:
        super().__init__(table, first_class=first_class, seed=seed, device=device)
        self.shared = SharedMotion()
        self.slots = MomentumSlots(self.tables)
        self._shown: Tensor | None = None

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
        self.draw_rounding(UPDATE)
        for here, part in self.in_reach(rows, write=True):
            ends = offsets[here.start : here.stop + 1]
            self.kernels.update_rows(self.tables, part, pairs, ends, embeddings, self.shared.motion())

    def touch_range(self, start: int, sums: Tensor) -> None:
        """Move the rows from ``start`` on by sums [A, D] of dL/dcos * embedding. Codes become invalid."""
        self.forget_codes()
        rows = torch.arange(start, start + len(sums), device=sums.device)
        self._need_momentum(rows)
        self.draw_rounding(UPDATE)
        for first, count in self.ranges_in_reach(start, len(sums), write=True):
            here = sums[first - start : first - start + count]
            self.kernels.update_dense(self.tables, first, here, self.shared.motion())

    def end_step(self) -> None:
        """Move restless rows that were not touched, let time pass, and let go of rows that came to rest."""
        tables, slots, shared = self.tables, self.slots, self.shared
        if tables.codes is not None and slots.used:
            waiting = tables.touched[: slots.used] <= tables.now
            restless = slots.rows_where((tables.unrest[: slots.used] > tables.calm) & waiting)
            self.draw_rounding(UPDATE)
            for _, part in self.in_reach(restless, write=True):
                self.kernels.update_rows(tables, part, None, None, tables.momentum, shared.motion())
        tables.now += 1
        shared.age()
        self.refresh()
        if slots.used:
            at_rest = slots.rows_where(tables.expiry[: slots.used] <= tables.now)
            if len(at_rest):
                self.draw_rounding(TO_REST)
                for _, part in self.in_reach(at_rest, write=True):
                    self.kernels.settle_rows(tables, part, shared.rest, shared.motion())
                slots.take(at_rest)
        if shared.scale < SMALLEST_SCALE:
            self._fold(SMALLEST_SCALE)  # a power of two: exact

    def bring_to_now(self) -> None:
        """Catch up every row in motion, with bounds for the present rate."""
        if self.slots.live:
            self.draw_rounding(CATCH_UP)
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

    def momentum(self, begin: int, end: int) -> Tensor:
        """A new [end - begin, D] tensor: torch.optim.SGD's momentum buffer of these rows, all of which stand at now."""
        tables, scale = self.tables, self.shared.scale
        dense = self.stored(begin, end) * (self.shared.carry * scale)
        slots = tables.slots[begin:end].long()
        live = (slots >= 0).nonzero().squeeze(1)
        dense[live] += tables.momentum[slots[live]] / scale
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
        if self._shown is not self.shared.decay:
            self._shown = self.shared.decay
            tables.decay = self._shown.float().to(self.device)
        tables.norm_floor = NORM_FLOOR / self.shared.scale

    def _need_momentum(self, rows: Tensor) -> None:
        if self.shared.factor != 0.0:
            self.slots.give(rows)

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
