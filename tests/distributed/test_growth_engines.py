"""A run grows alike under DDP and DeepSpeed's ZeRO 0 to 3, from what any of them saved; what does not fit is told."""

from typing import Any

import pytest
import torch
from checkpoint_reading import assert_identical
from gang import run_gang
from growing import NEW, OLD, write_people
from growing_by_engine import ENGINES, OLD_ENGINES, SPOILED, grow_by_engine

pytestmark = pytest.mark.distributed

Ranks = list[dict[Any, Any]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    folder = tmp_path_factory.mktemp("engines")
    old, new = write_people(folder / "old people", OLD), write_people(folder / "new people", NEW)
    return run_gang(2, grow_by_engine, folder, old, new, folder=folder / "gang", deadline_seconds=240)


@pytest.mark.parametrize("was", OLD_ENGINES)
@pytest.mark.parametrize("stage", ENGINES)
def test_every_engine_grows_the_same(ranks: Ranks, was: int | None, stage: int | None) -> None:
    """Bit for bit: centers and their momentum on each rank, the backbone as it is saved and as it embeds images."""
    for rank in ranks:
        found, truth = rank[was, stage], rank[was, None]
        for key in ("start", "centers", "momentum", "own_angle", "evaluated"):
            assert_identical(found[key], truth[key], key)
    first, truth = ranks[0][was, stage], ranks[0][was, None]
    assert_identical(first["weights"], truth["weights"])
    assert_identical(first["optimizer"], truth["optimizer"])
    assert all(each["momentum_buffer"].norm() > 0 for each in first["optimizer"].values())


def test_the_old_runs_were_trained(ranks: Ranks) -> None:
    """Those of both engines learned the same to rounding, so what grows from them is the same to rounding, too."""
    for rank in ranks:
        one, other = (rank[was, None] for was in OLD_ENGINES)
        torch.testing.assert_close(one["centers"], other["centers"], rtol=1e-3, atol=1e-4)
        assert not torch.equal(one["centers"], torch.zeros_like(one["centers"]))
        assert one["momentum"].any()


@pytest.mark.parametrize("stage", [None, 3])
@pytest.mark.parametrize("name", list(SPOILED))
def test_what_does_not_fit_is_told_on_all_ranks_before_an_engine_is_made(
    ranks: Ranks, name: str, stage: int | None
) -> None:
    told = [rank["refused"].get((name, stage), ("accepted", True)) for rank in ranks]
    assert SPOILED[name][2] in told[0][0]
    assert told[1] == told[0]
    assert not told[0][1], "nothing was split"
    assert "\n" not in told[0][0]


@pytest.mark.parametrize("stage", [None, 3])
def test_a_center_that_is_not_a_number_is_told_on_all_ranks(ranks: Ranks, stage: int | None) -> None:
    told = [rank["diverged"].get(stage, "accepted") for rank in ranks]
    assert told[0].startswith("growth: the old run's centers are not finite"), told
    assert told[1] == told[0]
