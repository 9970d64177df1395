"""A run that moves from 4 ranks to 1 to 3 to 2 equals the run that never moved; damage on the way is noticed by all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gang import run_gang
from training_on_ranks import LOSSES, continue_run, continue_runs

from trainer.checkpoint import complete_checkpoints

pytestmark = pytest.mark.distributed

EACH = 5
WORLDS = (4, 1, 3, 2, 2)
Stages = list[list[dict[str, Any]]]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moved")


@pytest.fixture(scope="module")
def stages(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """What each rank of each stage returned, both losses in the same processes."""
    found: Stages = []
    for stage, ranks in enumerate(WORLDS):
        if ranks == 1:
            found.append([continue_runs(0, 1, run_folder, EACH)])
        else:
            gang = tmp_path_factory.mktemp("gang") / str(stage)
            found.append(run_gang(ranks, continue_runs, run_folder, EACH, folder=gang))
    return found


@pytest.mark.parametrize("loss", list(LOSSES))
def test_a_run_that_moves_equals_the_run_that_stays(loss: str, stages: Stages, tmp_path: Path) -> None:
    begun = continue_run(0, 1, tmp_path / "begun", loss, 0)
    whole = continue_run(0, 1, tmp_path / "whole", loss, len(WORLDS) * EACH)
    if loss == "sface":
        assert "screened" in whole["modes"], "momentum of single rows moves, too"
    for stage, ranks in enumerate(stages):
        assert {rank[loss]["begin"] for rank in ranks} == {stage * EACH}
    last = [rank[loss] for rank in stages[-1]]
    centers = torch.cat([rank["centers"] for rank in last])
    assert (centers - whole["centers"]).norm() < 1e-4 * (whole["centers"] - begun["centers"]).norm()
    moved = (whole["backbone"] - begun["backbone"]).norm()
    assert (last[0]["backbone"] - whole["backbone"]).norm() < 1e-4 * moved
    assert torch.equal(last[0]["backbone"], last[1]["backbone"])


def test_random_states_go_on_or_begin_anew(stages: Stages) -> None:
    """No rank draws what another one, or itself at another stage, has drawn."""
    drawn = [tuple(rank["sface"]["drawn"].tolist()) for ranks in stages[1:] for rank in ranks]
    assert len(set(drawn)) == len(drawn)


def test_all_ranks_go_back_to_the_newest_whole_checkpoint(stages: Stages, run_folder: Path, tmp_path: Path) -> None:
    newest, before = complete_checkpoints(run_folder / "sface")[::-1][:2]
    files = sorted(newest.glob("rank_*.bin"))
    content = bytearray(files[1].read_bytes())
    content[len(content) // 2] ^= 1
    files[1].write_bytes(content)  # only some rank reads this byte
    (before / "checkpoint.json").write_text((before / "checkpoint.json").read_text()[:-40])
    ranks = run_gang(3, continue_run, run_folder / "sface", "sface", 1, folder=tmp_path / "gang")
    assert {rank["begin"] for rank in ranks} == {3 * EACH}
    for rank in ranks:
        assert len(rank["damages"]) == 2
        assert f"{files[1]}: " in rank["damages"][0]
        assert str(before) in rank["damages"][1]
