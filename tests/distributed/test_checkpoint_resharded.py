"""A run that moves from 4 ranks to 1 to 3 to 2 equals the run that never moved; damage on the way is noticed by all."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gang import run_gang
from training_on_ranks import EXACT, LOSSES, continue_run, continue_runs

from trainer.checkpoint import complete_checkpoints

pytestmark = pytest.mark.distributed

EACH = 5
MOVES = (4, 1, 3, 2)
WORLDS = (*MOVES, 2)
MODES = {"sface": "screened", "sface_dense": "dense", "cosface": "dense"} | dict.fromkeys(EXACT, "exact")
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


@pytest.mark.parametrize("loss", [*LOSSES, *EXACT])
def test_a_run_that_moves_equals_the_run_that_stays(loss: str, stages: Stages, tmp_path: Path) -> None:
    """After 20 steps on 4, 1, 3 and 2 ranks: weights, and the next step, which shows the momentum of all of them."""
    begun = continue_run(0, 1, tmp_path / "begun", loss, 0)
    whole = continue_run(0, 1, tmp_path / "whole", loss, len(MOVES) * EACH)
    assert set(whole["modes"][4:]) == {MODES[loss]}, "the path meant, but for the first steps of a run"
    for stage, ranks in enumerate(stages):
        assert {rank[loss]["begin"] for rank in ranks} == {stage * EACH}
    limit = 1e-8 if loss in EXACT else 1e-4
    last = [rank[loss] for rank in stages[len(MOVES) - 1]]
    for name in ("centers", "centers_next", "momentum", "backbone", "backbone_next"):
        found = last[0][name] if name.startswith("backbone") else torch.cat([rank[name] for rank in last])
        assert found.dtype == (torch.float64 if loss in EXACT else torch.float32)
        moved = whole[name] - begun[name] if name in ("centers", "backbone") else whole[name]
        assert (found - whole[name]).norm() < limit * moved.norm(), name
    assert torch.equal(last[0]["backbone"], last[1]["backbone"])


def test_classes_that_had_no_sample_yet_are_known_wherever_they_move(stages: Stages) -> None:
    before = None
    for ranks in stages:
        begin, end = (sum(rank["sface"]["unseen"][place] for rank in ranks) for place in (0, 1))
        assert before in (None, begin)
        assert 0 < end < begin
        before = end


def test_classes_are_uneven_on_all_ranks_counts(stages: Stages) -> None:
    for ranks, found in zip(WORLDS, stages, strict=True):
        rows = {len(rank["sface"]["centers"]) for rank in found}
        assert (len(rows) == 2) == (ranks > 1)


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
