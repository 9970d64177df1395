"""Momentum of rows in motion as saved: by global class id.

Shape letters: R rows of the class shard, D embedding size, K slots.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from partial_fc.center_rows import CenterRows
from partial_fc.class_shard import ClassShard
from partial_fc.momentum_slots import NOBODY
from partial_fc.shared_motion import SharedMotion

OF_A_ROW = ("momentum", "touched", "expiry", "unrest")


def motion_state(rows: CenterRows, shard: ClassShard) -> dict[str, Any]:
    """shared: numbers of all rows; now: steps; classes: [K] int64 global ids, -1 for a free place; momentum: [K, D];
    touched, expiry, unrest: [K]. The tensors are the rows' own, not copies.
    """
    tables, used = rows.tables, rows.slots.used
    owner = rows.slots.owner[:used]
    return {
        "shared": rows.shared.state(),
        "now": tables.now,
        "classes": torch.where(owner == NOBODY, NOBODY, owner + shard.start),
        "momentum": _alone(tables.momentum[:used]),
        "touched": _alone(tables.touched[:used]),
        "expiry": _alone(tables.expiry[:used]),
        "unrest": _alone(tables.unrest[:used]),
    }


def load_motion(rows: CenterRows, shard: ClassShard, states: Sequence[dict[str, Any]]) -> None:
    """Take from ``states``, of any shards, what belongs to this one; the stored weights must be those saved with it.

    Raises ValueError when the states do not come from the same step.
    """
    if len({int(state["now"]) for state in states}) > 1:
        raise ValueError("saved momentum comes from different steps: use files of one checkpoint")
    begin_motion(rows, states[0]["shared"], int(states[0]["now"]))
    for state in states:
        classes = state["classes"].to(rows.tables.slots.device)
        here = ((classes >= shard.start) & (classes < shard.stop)).nonzero().squeeze(1)
        add_motion(rows, classes[here] - shard.start, {name: state[name].to(here.device)[here] for name in OF_A_ROW})


def begin_motion(rows: CenterRows, shared: dict[str, Any], now: int) -> None:
    """Start from the saved numbers of all rows, with no row in motion."""
    rows.forget_codes()
    rows.slots.clear()
    rows.shared = SharedMotion.from_state(shared)
    rows.tables.now = now
    rows.refresh()


def add_motion(rows: CenterRows, own: Tensor, state: dict[str, Tensor]) -> None:
    """Give the rows ``own`` [n], each once, their saved motion: momentum [n, D], touched, expiry, unrest [n]; those of
    them that are in ``state``.
    """
    rows.slots.give(own)
    slots = rows.tables.slots[own].long()
    for name, values in state.items():
        array = getattr(rows.tables, name)
        array.index_copy_(0, slots, values.to(array.device))


def _alone(tensor: Tensor) -> Tensor:
    """The same memory under a storage of its own: saving a view writes all of the storage behind it."""
    return torch.from_numpy(tensor.numpy()) if tensor.device.type == "cpu" else tensor.clone()
