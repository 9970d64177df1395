"""Centers and momentum of an older head put into a new one: other numbers, other ranks, some of them new.

Shape letters: R rows of this rank's class shard, D embedding size, n rows of one portion.
"""

from typing import Any

import torch
from torch import Tensor

from partial_fc.center_sgd import CenterSGD
from partial_fc.class_shard import ClassShard
from partial_fc.head import PartialFC
from partial_fc.initial_centers import INIT_BLOCK, initial_centers
from partial_fc.momentum_buffer import momentum_buffer
from partial_fc.momentum_slots import NEVER
from partial_fc.motion_state import add_motion, begin_motion
from partial_fc.shared_motion import HEADROOM

TILE_ROWS = 4096


class MovedCenters:
    """Fills ``head`` and ``optimizer``, both fresh, portion by portion: no second [R, D] copy exists at any time.

    First ``put_*`` in any order, rows as saved by :func:`partial_fc.state.center_state` of a head of any kind; then
    ``settle`` once, after which the centers are plain numbers; then ``set_new`` for rows that get other values than the
    initial ones. Rows are places in this rank's class shard, each at most once; values may lie on the CPU.

    motion: "shared" and "now" of the older head's motion; None for a head without (a sampled or margin softmax one).
    keep_momentum: whether momentum is put, too. It goes from any kind of head to any.
    """

    @torch.no_grad()
    def __init__(
        self, head: PartialFC, optimizer: CenterSGD, *, motion: dict[str, Any] | None, keep_momentum: bool
    ) -> None:
        self._head = head
        self._optimizer = optimizer
        self._keep = keep_momentum
        self._weights = head.stored_centers.detach()
        self._rows = head.rows
        if motion is not None:
            # A head without motion borrows the arithmetic until its centers are plain.
            self._rows = head.rows or head.new_rows()
            begin_motion(self._rows, motion["shared"], int(motion["now"]))
        elif self._rows is not None:
            group = optimizer.param_groups[0]
            self._rows.shared.start_factor(group["momentum"])
            self._rows.shared.bound = group["lr"] * HEADROOM
            self._rows.refresh()

    @torch.no_grad()
    def put_centers(self, rows: Tensor, values: Tensor) -> None:
        """Stored centers [n, D] of ``rows`` [n] int64, in whatever type they were saved."""
        self._weights.index_copy_(0, self._here(rows), self._here(values).to(self._weights.dtype))

    @torch.no_grad()
    def put_momentum(self, rows: Tensor, values: Tensor) -> None:
        """Momentum [n, D] of ``rows`` [n] of a head without motion."""
        if not self._keep:
            return
        if self._head.rows is None:
            self._buffer().index_copy_(0, self._here(rows), self._here(values))
        else:
            self._add_restless(self._here(rows), self._here(values))

    @torch.no_grad()
    def put_motion(self, rows: Tensor, state: dict[str, Tensor]) -> None:
        """Motion of ``rows`` [n]: as :func:`partial_fc.motion_state.add_motion`. Needed also where momentum is not
        kept: a row in motion has yet to be moved.
        """
        assert self._rows is not None, "of a head with motion"
        add_motion(self._rows, rows.to(self._rows.device), state)

    @torch.no_grad()
    def settle(self, new: Tensor) -> None:
        """Make the centers current; rows ``new`` [n], ascending, start as in any new head, without momentum.

        Bfloat16 centers of a head with motion keep their common scale: to multiply by it would round all of them.
        """
        head = self._head
        if self._rows is not None:
            if head.rows is not None and head.rows.is_rounded:
                self._rows.bring_to_now()
            else:
                self._rows.make_plain()
            if not self._keep:
                self._rows.drop_momentum()
            elif head.rows is None:
                for begin in range(0, len(self._weights), TILE_ROWS):
                    here = self._rows.momentum(begin, min(begin + TILE_ROWS, len(self._weights)))
                    self._buffer()[begin : begin + len(here)] = self._here(here)
        if head.rows is None:
            self._rows = None
        self._start(new)

    @torch.no_grad()
    def set_new(self, rows: Tensor, values: Tensor) -> None:
        """Centers [n, D] float32 of new ``rows`` [n], without momentum. ``settle`` comes before."""
        rows, values = self._here(rows), self._here(values)
        scale = 1.0 if self._head.rows is None else self._head.rows.shared.scale
        self._head.stored_centers.index_copy_(0, rows, (values / scale).to(self._weights.dtype))
        if self._head.rows is None:
            if self._has_buffer:
                self._buffer().index_fill_(0, rows, 0.0)
        elif len(rows):
            self._head.rows.forget_codes()
            # Momentum is carry * w + E, and here it shall be 0.
            if (carry := self._head.rows.shared.carry) != 0.0:
                self._add_restless(rows, values * (-carry * scale))

    def _start(self, new: Tensor) -> None:
        head, shard = self._head, self._head.class_shard
        sizes = torch.unique(new // INIT_BLOCK, return_counts=True)[1].tolist()
        for rows in torch.split(new, sizes):
            part = ClassShard(shard.start + int(rows[0]), shard.start + int(rows[-1]) + 1)
            self.set_new(rows, initial_centers(part, head.embedding_dim, head.seed)[rows - rows[0]])

    def _add_restless(self, rows: Tensor, momentum: Tensor) -> None:
        """Momentum in need of a step: until then nobody knows how far it will carry the rows."""
        assert self._rows is not None, "of a head with motion"
        if self._rows.shared.factor == 0.0:
            return  # a row without momentum factor keeps none
        tables, rows = self._rows.tables, rows.to(self._rows.device)
        add_motion(
            self._rows,
            rows,
            {
                "momentum": momentum,
                "touched": torch.full_like(rows, tables.now, dtype=torch.int32),
                "expiry": torch.full_like(rows, NEVER, dtype=torch.int32),
                "unrest": torch.full_like(rows, 2.0 * tables.calm, dtype=torch.float32),
            },
        )

    @property
    def _has_buffer(self) -> bool:
        return "momentum_buffer" in self._optimizer.state.get(self._head.stored_centers, {})

    def _buffer(self) -> Tensor:
        return momentum_buffer(self._optimizer, self._head.stored_centers)

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._weights.device)
