"""The benchmark poses the same problem on any number of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gang import run_gang

from partial_fc import class_shard
from trainer.bench.batches import draw_batches
from trainer.bench.geometry import Geometry
from trainer.bench.problem import Problem
from trainer.world import World

pytestmark = pytest.mark.distributed

CLASSES, DIM, GLOBAL_BATCH = 37, 8, 12


def drawn(rank: int, world_size: int) -> list[Any]:
    problem = Problem("sface", CLASSES, DIM, GLOBAL_BATCH // world_size, 0.4, 1e-3)
    geometry = Geometry(DIM, problem.spread, seed=4)
    shard = class_shard(CLASSES, world_size, rank)
    rows = torch.empty(len(shard), DIM)
    geometry.fill_centers(rows, shard.start)
    world = World(rank, world_size, rank, torch.device("cpu"))
    batches = draw_batches(2, problem, rows, geometry, world, seed=9)
    return [(batch.embeddings, batch.identities) for batch in batches]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batch_that_one_rank_draws(tmp_path: Path, world_size: int) -> None:
    whole = drawn(0, 1)
    parts = run_gang(world_size, drawn, folder=tmp_path)
    for step, (embeddings, identities) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][1] for part in parts]), identities)
        torch.testing.assert_close(torch.cat([part[step][0] for part in parts]), embeddings)
    assert not torch.equal(whole[0][1], whole[1][1]), "every step has a new batch"
