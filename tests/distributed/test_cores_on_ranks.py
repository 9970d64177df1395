"""Ranks that may use the same cores share them; a rank with cores of its own, or that was told, keeps its threads."""

import os
from pathlib import Path

import pytest
import torch
from gang import run_gang

from trainer.cores import share_cores, threads_of_a_rank
from trainer.world import World, threads_are_told

pytestmark = pytest.mark.distributed


def share(rank: int, world_size: int) -> tuple[int, int]:
    """Threads where a launcher has said 5, and where none has said anything."""
    world = World(rank, world_size, rank, torch.device("cpu"), world_size)
    torch.set_num_threads(5)
    share_cores(world, told=True)
    told = torch.get_num_threads()
    share_cores(world, told=False)
    return told, torch.get_num_threads()


def test_ranks_of_one_machine_share_its_cores(tmp_path: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    assert run_gang(3, share, folder=tmp_path) == [(5, max(1, cores // 3))] * 3
    assert run_gang(1, share, folder=tmp_path / "alone") == [(5, 5)]


def test_only_ranks_with_the_same_cores_share_them() -> None:
    first, second = ("node", tuple(range(8))), ("node", tuple(range(8, 16)))
    elsewhere = ("other", first[1])
    everyone = [first, first, first, second, elsewhere, elsewhere]
    assert [threads_of_a_rank(each, everyone) for each in everyone] == [2, 2, 2, 8, 4, 4]
    assert threads_of_a_rank(("node", (0,)), [("node", (0,))] * 4) == 1


def test_a_number_of_threads_is_told_by_the_environment() -> None:
    assert threads_are_told({"OMP_NUM_THREADS": "1"}) and not threads_are_told({"WORLD_SIZE": "2"})
