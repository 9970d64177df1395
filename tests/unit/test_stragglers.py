"""Which rank is slow, and when it is called so."""

import pytest
import torch
from torch import nn

from trainer.backbones.sync_batch_norm import SyncBatchNorm
from trainer.own_time import OwnTime
from trainer.stragglers import LASTING, Comparison, SlowRank, compare

pytestmark = pytest.mark.unit


def test_the_slowest_is_compared_with_the_median_of_the_others() -> None:
    found = compare([0.2, 0.3, 0.9, 0.2, 0.25])
    assert (found.slowest, found.ratio, found.lost_seconds) == (2, pytest.approx(0.9 / 0.225), pytest.approx(0.675))
    assert compare([0.4, 0.2]).ratio == pytest.approx(2.0)
    assert compare([0.0, 0.0]).ratio == 0.0


def comparison(ratio: float, slowest: int = 2) -> Comparison:
    return Comparison(slowest, ratio, (ratio - 1) * 0.2)


def test_a_rank_is_called_slow_once_and_well_once() -> None:
    slow = SlowRank(limit=1.5)
    assert [slow.judge(comparison(2.0), 1.0) for _ in range(LASTING + 2)] == [None] * (LASTING - 1) + ["slow"] + [
        None,
        None,
    ]
    assert slow.called == 2
    # Between the two limits nothing changes, however long it lasts.
    assert {slow.judge(comparison(1.3), 1.0) for _ in range(10)} == {None}
    assert [slow.judge(comparison(1.1), 1.0) for _ in range(LASTING)][-1] == "well"
    assert slow.called is None


def test_a_single_slow_step_or_changing_ranks_call_nobody() -> None:
    slow = SlowRank(limit=1.5)
    for turn in range(20):
        assert slow.judge(comparison(3.0, slowest=turn % 2), 1.0) is None
        assert slow.judge(comparison(3.0 if turn % 3 else 1.0), 1.0) is None


def test_a_ratio_that_costs_nothing_calls_nobody() -> None:
    slow = SlowRank(limit=1.5)
    assert {slow.judge(Comparison(1, 4.0, 0.004), 1.0) for _ in range(10)} == {None}


def test_own_time_is_what_comes_before_the_head_less_the_waits() -> None:
    now = 0.0
    norm = SyncBatchNorm(3)
    own = OwnTime(nn.Sequential(norm), torch.device("cpu"), lambda: now)
    for _ in range(2):
        for part, seconds in (("data", 0.5), ("data", 0.25), ("forward", 2.0), ("head", 9.0), ("backward", 9.0)):
            own.entered(part)
            if part == "forward":
                norm.waited_seconds += 1.5
            if part == "backward":
                norm.waited_seconds += 7.0  # activation checkpointing runs forward again
            now += seconds
        assert own.take() == pytest.approx(0.5 + 0.25 + 2.0 - 1.5)
        assert own.take() == 0.0
