"""Centers in bfloat16: what is stored does not depend on the number of ranks, nor on a checkpoint in between."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from rounded_training import CLASSES, gone_on_alone

pytestmark = pytest.mark.distributed

Gang = Callable[[int], list[dict[str, Any]]]


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_same_table_at_any_world_size(world_size: int, head_gang: Gang) -> None:
    """SFace bit for bit: a center's update is computed where it lives, and rounded by its class."""
    alone, ranks = head_gang(1)[0]["bfloat16"], [rank["bfloat16"] for rank in head_gang(world_size)]
    table = torch.cat([rank["sface"]["table"] for rank in ranks])
    assert table.dtype == torch.bfloat16
    assert set(alone["sface"]["modes"]) == {"screened"}
    assert torch.equal(table, alone["sface"]["table"])
    # The denominator of softmax is summed in another order: now and then a number is rounded the other way.
    table = torch.cat([rank["cosface"]["table"] for rank in ranks])
    other = table != alone["cosface"]["table"]
    assert other.sum() < 1e-3 * table.numel()
    assert (table.float() - alone["cosface"]["table"].float()).norm() < 1e-3 * table.float().norm()


@pytest.mark.parametrize("world_size", [1, 3])
def test_one_rank_goes_on_from_what_others_saved(world_size: int, head_gang: Gang) -> None:
    ranks = [rank["bfloat16"] for rank in head_gang(world_size)]
    pieces = [rank["sface"]["piece"] for rank in ranks]
    assert pieces[0]["start"] == 0
    assert sum(len(piece["centers"]) for piece in pieces) == CLASSES
    table = torch.cat([rank["sface"]["table"] for rank in ranks])
    assert torch.equal(gone_on_alone(pieces[::-1], "sface"), table)
