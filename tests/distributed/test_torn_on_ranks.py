"""Damage that one rank alone would see: all of them take the checkpoint before, and say the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from damages import DAMAGES
from gang import run_gang
from training_on_ranks import continue_run, new_trained

from trainer.checkpoint import load_newest
from trainer.world import World

pytestmark = pytest.mark.distributed

FILES = ("checkpoint.json", "rank_0000.bin", "rank_0001.bin")
Found = dict[str, dict[str, Any]]


def load_damaged(rank: int, world_size: int, folder: Path) -> Found:
    """By file and damage: what is loaded, and what is said."""
    world = World(rank, world_size, rank, torch.device("cpu"))
    for _ in range(2):
        continue_run(rank, world_size, folder / "whole", "sface", 1)
    found = {"whole": load(folder / "whole", world)}
    for file in FILES:
        for name, damage in DAMAGES.items():
            run = folder / "damaged"
            if rank == 0:
                shutil.rmtree(run, ignore_errors=True)
                shutil.copytree(folder / "whole", run)
                damage(run / "checkpoints" / "step_00000002" / file)
            dist.barrier()
            found[f"{file}: {name}"] = load(run, world)
            dist.barrier()
    return found


def load(folder: Path, world: World) -> dict[str, Any]:
    trained = new_trained("sface")
    position, damages = load_newest(folder, trained, world=world, seed=0)
    assert position is not None
    return {"step": position.step, "damages": damages, "centers": trained.head.centers.detach().clone()}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    folder = tmp_path_factory.mktemp("torn")
    return run_gang(2, load_damaged, folder, folder=folder / "gang")


@pytest.mark.parametrize("file", FILES)
def test_all_take_the_one_before(file: str, ranks: list[Found]) -> None:
    assert [(rank["whole"]["step"], rank["whole"]["damages"]) for rank in ranks] == [(2, [])] * 2
    before = [rank[f"{FILES[0]}: missing"]["centers"] for rank in ranks]
    for name in DAMAGES:
        cases = [rank[f"{file}: {name}"] for rank in ranks]
        assert [case["step"] for case in cases] == [1, 1], name
        for case, centers, rank in zip(cases, before, ranks, strict=True):
            assert torch.equal(case["centers"], centers)
            assert not torch.equal(case["centers"], rank["whole"]["centers"])
            (told,) = case["damages"]
            assert f"step_00000002/{file}: " in told or "another rank failed" in told
        assert any(f"step_00000002/{file}: " in case["damages"][0] for case in cases), name
        # Rank 0 tells the user.
        assert f"step_00000002/{file}: " in cases[0]["damages"][0], name
