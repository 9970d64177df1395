"""Places of momentum: given, taken back, moved together; whoever has one keeps its values."""

import pytest
import torch

from partial_fc.momentum_slots import MomentumSlots
from partial_fc.row_tables import NO_SLOT, RowTables

pytestmark = pytest.mark.unit

ROWS, DIM = 20_000, 6


def filled(count: int) -> tuple[RowTables, MomentumSlots]:
    """The first ``count`` rows have momentum: their own number in every column."""
    tables = RowTables.around(torch.ones(ROWS, DIM), norm_floor=1e-12, calm=0.004)
    slots = MomentumSlots(tables)
    slots.give(torch.arange(count))
    tables.momentum[tables.slots[:count].long()] = torch.arange(count).float()[:, None].expand(-1, DIM)
    return tables, slots


def assert_own_values(tables: RowTables, rows: torch.Tensor) -> None:
    found = tables.momentum[tables.slots[rows].long()]
    assert torch.equal(found, rows.float()[:, None].expand(-1, DIM))


def test_new_places_hold_zeros_and_old_ones_stay() -> None:
    tables, slots = filled(10)
    slots.give(torch.arange(5, 15))
    assert slots.live == 15
    assert_own_values(tables, torch.arange(10))
    assert torch.equal(tables.momentum[tables.slots[10:15].long()], torch.zeros(5, DIM))


def test_freed_places_are_used_again() -> None:
    tables, slots = filled(10)
    slots.take(torch.tensor([2, 7]))
    assert slots.live == 8
    slots.give(torch.tensor([100, 200, 300]))
    assert slots.used == 11
    assert_own_values(tables, torch.tensor([0, 1, 3, 4, 5, 6, 8, 9]))
    assert not tables.momentum[tables.slots[[100, 200, 300]].long()].any()


def test_many_freed_places_bring_the_rest_together() -> None:
    tables, slots = filled(12_000)
    kept = torch.arange(0, 12_000, 5)
    gone = torch.ones(12_000, dtype=torch.bool)
    gone[kept] = False
    slots.take(gone.nonzero().squeeze(1))
    assert slots.used == slots.live == len(kept)
    assert_own_values(tables, kept)
    assert torch.equal(slots.owned()[1].sort().values, kept)
    assert (tables.slots[:12_000][gone] == NO_SLOT).all()
    slots.give(torch.arange(15_000, 15_010))
    assert not tables.momentum[tables.slots[15_000:15_010].long()].any()
