"""A saved state put into a head portion by portion, each row right where it stays.

Shape letters: R rows of this rank's class shard, D embedding size, K saved rows in motion, n rows of one portion.
"""

from typing import Any

import torch
from torch import Tensor

from partial_fc.center_sgd import CenterSGD
from partial_fc.head import PartialFC
from partial_fc.momentum_buffer import momentum_buffer
from partial_fc.momentum_slots import NOBODY
from partial_fc.motion_state import add_motion, begin_motion
from partial_fc.stored_rows import row_chunk

SMALL_OF_A_ROW = ("touched", "expiry", "unrest")


def check_fit(head: PartialFC, num_classes: int, embedding_dim: int, *, has_motion: bool) -> None:
    """Whether a state of these sizes, with or without rows in motion, belongs to ``head``. Raises ValueError."""
    if (num_classes, embedding_dim) != (head.num_classes, head.embedding_dim):
        raise ValueError(
            f"saved centers are {num_classes} classes x {embedding_dim}, this head has "
            f"{head.num_classes} x {head.embedding_dim}: resume with the configuration of that run"
        )
    if (head.rows is not None) != has_motion:
        raise ValueError("saved centers come from a head with another kind of loss or sampling: resume with that one")


class CenterLoading:
    """Fills ``head`` and ``optimizer``, whatever they held, from what :func:`partial_fc.center_state` saved on any
    number of ranks: no second [R, D] copy exists at any time.

    To be made once all that is needed is known to be there; then every row of the shard is put once, in any order.

    steps_taken, control: as saved. motion: None for a head without; else ``shared`` and ``now`` as saved, and
    ``classes``, ``touched``, ``expiry``, ``unrest`` [K] of all saved rows that may be of this shard, one after another:
    only momentum [K, D] is left to be put. has_momentum: whether a head without motion gets the momentum of all rows.
    """

    @torch.no_grad()
    def __init__(
        self,
        head: PartialFC,
        optimizer: CenterSGD,
        *,
        steps_taken: int,
        control: dict[str, Any],
        motion: dict[str, Any] | None,
        has_momentum: bool,
    ) -> None:
        self._head = head
        self._centers = head.stored_centers.detach()
        self._buffer = momentum_buffer(optimizer, head.stored_centers) if has_momentum else None
        if not has_momentum:
            optimizer.state.pop(head.stored_centers, None)
        head.steps_taken = steps_taken
        head.control.load_state(control)
        if head.rows is not None:
            assert motion is not None, "checked before"
            self._places = self._begin_motion(motion)

    @torch.no_grad()
    def put_centers(self, start: int, rows: Tensor) -> None:
        """Stored centers [n, D] of the classes from ``start`` on, all of this shard; of whatever type they were saved
        in: float32 goes to the nearest in a bfloat16 head.
        """
        self._centers[self._rows(start, rows)] = rows.to(self._centers.device)

    @torch.no_grad()
    def put_momentum(self, start: int, rows: Tensor) -> None:
        """Momentum [n, D] of the classes from ``start`` on, for a head without motion."""
        assert self._buffer is not None, "asked for"
        self._buffer[self._rows(start, rows)] = rows.to(self._buffer.device)

    @torch.no_grad()
    def put_motion(self, first: int, momentum: Tensor) -> None:
        """Momentum [n, D] of rows [first, first + n) of the K; those of other shards are passed over."""
        assert self._head.rows is not None, "of a head with motion"
        room = self._head.rows.tables.momentum
        for begin in range(0, len(momentum), row_chunk(momentum)):
            some = momentum[begin : begin + row_chunk(momentum)]
            places = self._places[first + begin :][: len(some)]
            here = places != NOBODY
            room.index_copy_(0, places[here], some[here.to(some.device)].to(room.device))

    def _begin_motion(self, motion: dict[str, Any]) -> Tensor:
        """Everything but momentum; [K] int64, its place in the tables, -1 for rows of others."""
        rows, shard = self._head.rows, self._head.class_shard
        assert rows is not None, "of a head with motion"
        begin_motion(rows, motion["shared"], int(motion["now"]))
        classes = motion["classes"].to(rows.device)
        is_here = (classes >= shard.start) & (classes < shard.stop)
        own = classes[is_here] - shard.start
        small = {name: motion[name].to(rows.device)[is_here] for name in SMALL_OF_A_ROW}
        add_motion(rows, own, small)
        places = torch.full_like(classes, NOBODY)
        places[is_here] = rows.tables.slots[own].long()
        return places

    def _rows(self, start: int, rows: Tensor) -> slice:
        begin = start - self._head.class_shard.start
        return slice(begin, begin + len(rows))
