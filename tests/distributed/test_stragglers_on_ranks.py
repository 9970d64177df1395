"""Three ranks compare their own times: each knows who is slow, and says so once."""

from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from gang import run_gang
from prometheus_client import CollectorRegistry

from trainer.stragglers import EVERY_STEPS, LASTING, Stragglers
from trainer.world import World

pytestmark = pytest.mark.distributed


def compare_on_this_rank(rank: int, world_size: int) -> dict[str, Any]:
    registry, said = CollectorRegistry(), []
    stragglers = Stragglers(
        World(rank, world_size, rank, torch.device("cpu")),
        limit=1.5,
        registry=registry,
        log=structlog.wrap_logger(structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger(0)),
        say=said.append,
        name=lambda number: f"rank {number} (host)",
    )
    gauges = []
    # Alike; then rank 2 needs three times as long, but for one step in every comparison; then alike again.
    for slowness in (1.0, *[3.0] * (LASTING + 1), *[1.0] * LASTING):
        for step in range(1, EVERY_STEPS + 1):
            own = 0.1 * (slowness if rank == 2 and step != 5 else 1.0) + 0.001 * rank
            stragglers.add(step, own_seconds=own, step_seconds=0.5)
        names = ("pfc_straggler_ratio", "pfc_slowest_rank", "pfc_own_step_seconds")
        gauges.append([registry.get_sample_value(name) for name in names])
    return {"said": said, "gauges": gauges}


def test_all_ranks_find_the_same_rank_slow(tmp_path: Path) -> None:
    for rank, found in enumerate(run_gang(3, compare_on_this_rank, folder=tmp_path / "gang")):
        assert found["said"] == [
            "warning: rank 2 (host) is slow: 3.0 times the median of the others, "
            "which costs all 202 ms of every step of 500 ms",
            "no rank is slow any more",
        ]
        alike, slow = found["gauges"][0], found["gauges"][2]
        assert alike[0] == pytest.approx(0.102 / 0.1005)
        assert slow[:2] == [pytest.approx(0.302 / 0.1005), 2.0]
        assert slow[2] == pytest.approx(0.302 if rank == 2 else 0.1 + 0.001 * rank)


def test_alone_there_is_nobody_to_wait_for(tmp_path: Path) -> None:
    (found,) = run_gang(1, compare_on_this_rank, folder=tmp_path / "gang")
    assert found["said"] == []
    assert found["gauges"][0] == [1.0, 0.0, pytest.approx(0.1)]
