"""Sharded = unsharded for margin softmax, and for sampled steps of every loss; world sizes 1 to 4."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from head_training import MARGIN_CASES, SAMPLED_CASES, assert_sharded_is_unsharded, negative_weights, train_dense

from partial_fc.drop_sample import DROP_SUMS

pytestmark = pytest.mark.distributed

Gang = Callable[[int], list[dict[str, Any]]]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_margin_training_equals_the_dense_reference(world_size: int, head_gang: Gang) -> None:
    ranks = head_gang(world_size)
    for index, case in enumerate(MARGIN_CASES):
        truth, native = (train_dense(case, world_size, dtype) for dtype in (torch.float64, torch.float32))
        assert_sharded_is_unsharded(case, [rank["margins"][index] for rank in ranks], truth, native)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_sampled_training_equals_the_dense_reference_over_the_sampled_rows(world_size: int, head_gang: Gang) -> None:
    ranks = head_gang(world_size)
    for index, case in enumerate(SAMPLED_CASES):
        runs = [rank["sampled"][index] for rank in ranks]
        rows = [torch.cat([run["rows"][step] for run in runs]) for step in range(case.steps)]
        weights = [
            torch.cat([negative_weights(case, run, step, world_size) for run in runs]) for step in range(case.steps)
        ]
        truth, native = (
            train_dense(case, world_size, dtype, rows, weights) for dtype in (torch.float64, torch.float32)
        )
        assert_sharded_is_unsharded(case, runs, truth, native)


@pytest.mark.parametrize("world_size", [2, 4])
def test_draws_differ_on_every_rank_and_step(world_size: int, head_gang: Gang) -> None:
    runs = [rank["sampled"][1] for rank in head_gang(world_size)]
    draws = {tuple((rows - run["shard"][0]).tolist()) for run in runs for rows in run["rows"]}
    assert len(draws) == world_size * SAMPLED_CASES[1].steps


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_denominator_costs_twelve_bytes_a_sample(world_size: int, head_gang: Gang) -> None:
    for rank in head_gang(world_size):
        moved = rank["bytes"]
        assert moved["CosFace", 5] == moved["CosFace", 5000]
        besides = moved["SFace", 5] - DROP_SUMS * 4  # what SFace alone exchanges: the sums of its sample, float32
        assert moved["CosFace", 5] - besides == 12 * 6 * world_size
