"""The centers of one class shard between optimizer steps: rows at rest untouched, rows in motion caught up when needed.

Shape letters: R rows of the class shard, D embedding size, N samples, P pairs, A rows touched.
"""

from types import ModuleType

import torch
from torch import Tensor

from partial_fc.kernels import kernels_for
from partial_fc.momentum_slots import MomentumSlots
from partial_fc.pairs import Pairs
from partial_fc.row_tables import RowTables
from partial_fc.shared_motion import HEADROOM, SMALLEST_GAMMA, SMALLEST_SCALE, SharedMotion
from partial_fc.tiled import NORM_FLOOR

CALM = 0.004  # rad: rows that will move by less stay where they are between touches


class CenterRows:
    """Centers w = scale * W and momentum m = carry * w + E / scale; see :mod:`partial_fc.shared_motion`.

    weights: [R, D] float32, W, shared with ``head.centers``. Rows with momentum are brought to now when they are
    touched, read or saved; those that will still turn by more than ``CALM`` are moved every step, so that their
    int8 codes stay sharp. All others drift within the slack that screening grants them.
    """

    def __init__(self, weights: Tensor) -> None:
        self.tables = RowTables.around(weights, norm_floor=NORM_FLOOR, calm=CALM)
        self.shared = SharedMotion()
        self.slots = MomentumSlots(self.tables)
        self._codes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tables.weights)

    @property
    def kernels(self) -> ModuleType:
        """Not kept: modules cannot be copied, and heads are."""
        return kernels_for(self.tables.weights.device)

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
            self._codes = torch.zeros(len(self), tables.code_width, dtype=torch.int8, device=tables.weights.device)
        tables.codes = self._codes
        self.kernels.encode_all(tables)

    def forget_codes(self) -> None:
        """The rows change or have changed behind the codes' back."""
        self.tables.codes = None

    def unit_rows(self, rows: Tensor | None, start: int, unit: Tensor, inverse: Tensor) -> None:
        """Write unit rows and the inverse norms of W, of ``rows`` or from ``start`` on, into [A, D] and [A]."""
        self.kernels.gather_unit(self.tables, rows, start, len(unit), unit, inverse)

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
        self.kernels.update_rows(self.tables, rows, pairs, offsets, embeddings, self.shared.motion())

    def touch_range(self, start: int, sums: Tensor) -> None:
        """Move the rows from ``start`` on by sums [A, D] of dL/dcos * embedding. Codes become invalid."""
        self.forget_codes()
        rows = torch.arange(start, start + len(sums), device=sums.device)
        self._need_momentum(rows)
        self.kernels.update_dense(self.tables, start, sums, self.shared.motion())

    def end_step(self) -> None:
        """Move restless rows that were not touched, let time pass, and let go of rows that came to rest."""
        tables, slots, shared = self.tables, self.slots, self.shared
        if tables.codes is not None and slots.used:
            waiting = tables.touched[: slots.used] <= tables.now
            restless = slots.rows_where((tables.unrest[: slots.used] > tables.calm) & waiting)
            self.kernels.update_rows(tables, restless, None, None, tables.weights, shared.motion())
        tables.now += 1
        shared.age()
        self.refresh()
        if slots.used:
            at_rest = slots.rows_where(tables.expiry[: slots.used] <= tables.now)
            if len(at_rest):
                self.kernels.settle_rows(tables, at_rest, shared.rest, shared.motion())
                slots.take(at_rest)
        if shared.scale < SMALLEST_SCALE:
            self._fold(SMALLEST_SCALE)  # a power of two: exact

    def bring_to_now(self) -> None:
        """Catch up every row in motion, with bounds for the present rate."""
        if self.slots.live:
            self.kernels.settle_rows(self.tables, self.slots.owned()[1], 0.0, self.shared.motion())

    def make_plain(self) -> None:
        """Make W the centers themselves: scale 1, every row at now."""
        self.bring_to_now()
        self._fold(self.shared.scale)

    def momentum(self, begin: int, end: int) -> Tensor:
        """A new [end - begin, D] tensor: torch.optim.SGD's momentum buffer of these rows; make_plain() comes first."""
        tables = self.tables
        dense = tables.weights[begin:end] * self.shared.carry
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
        self.make_plain()
        self.slots.clear()
        self.shared = SharedMotion()
        self.refresh()

    def start_anew(self) -> None:
        """A step is taken on dense rows, all of which stand at now: they stand at the next one then."""
        self.forget_codes()
        self.tables.now += 1
        self.tables.touched[: self.slots.used] = self.tables.now

    def refresh(self) -> None:
        """Show the kernels the shared numbers."""
        tables = self.tables
        tables.travel = self.shared.ages.float().to(tables.weights.device)
        tables.decay = self.shared.decay.float().to(tables.weights.device)
        tables.norm_floor = NORM_FLOOR / self.shared.scale

    def _need_momentum(self, rows: Tensor) -> None:
        if self.shared.factor != 0.0:
            self.slots.give(rows)

    def _fold(self, share: float) -> None:
        """Move ``share`` of the common scale into the rows."""
        if share != 1.0:
            self.tables.weights.mul_(share)
            self.tables.momentum[: self.slots.used].div_(share)
            self.shared.rescale(share)
            self.refresh()
