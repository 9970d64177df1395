"""DeepSpeed as a user chooses it: a run that stops and goes on, moves to DDP, and says what it does not accept."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from checkpoint_reading import assert_identical, everything
from commands import Finished, pfc, run, torchrun
from small_faces import make_small_faces, write_run

from trainer.checkpoint import complete_checkpoints

pytestmark = pytest.mark.integration

STEPS = 6


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


def train(folder: Path, faces: Path, ranks: int, *overrides: str) -> Finished:
    config = write_run(folder / "run.toml", output=folder / "out", faces=faces, steps=STEPS, batch_size=8 // ranks)
    sets = [part for override in overrides for part in ("--set", override)]
    return run(torchrun(ranks, "train", config, *sets) if ranks > 1 else pfc("train", config, *sets), cwd=folder)


def final_state(folder: Path) -> dict[str, Any]:
    return everything(folder / "out" / "checkpoints" / f"step_{STEPS:08d}")


def last_line(folder: Path) -> dict[str, Any]:
    """Of the step after the move: what momentum makes of it would show in the next one only, and rounding, too."""
    line: dict[str, Any] = json.loads((folder / "out" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["step"] == STEPS
    return line


def test_a_run_under_zero_3_goes_on_bit_for_bit_and_moves_to_ddp(faces: Path, tmp_path: Path) -> None:
    plain = ["backbone.normalization=group", "backbone.dropout=0.0", "optimizer.lr=0.01", "train.clip_norm=50.0"]
    plain.append("checkpoint.keep_best=0")  # results of the evaluation are copied, so it is not made again
    zero = ["train.engine=deepspeed", "deepspeed.zero_optimization.stage=3", "backbone.activation_checkpointing=true"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    finished = train(whole, faces, 2, *plain, *zero)
    assert finished.code == 0, finished.err
    assert finished.out == "", "DeepSpeed keeps quiet"
    assert "accuracy" in finished.err, "a copy of the network was evaluated"

    shutil.copytree(whole, broken)
    shutil.rmtree(complete_checkpoints(broken / "out")[-1])
    shutil.copytree(broken, tmp_path / "moved")
    finished = train(broken, faces, 2, *plain, *zero)
    assert "continuing at step 5" in finished.err, finished.err
    assert_identical(final_state(broken), final_state(whole))

    finished = train(tmp_path / "moved", faces, 1, *plain, *zero[2:], "train.micro_batches=3")
    assert "continuing at step 5" in finished.err, finished.err
    assert finished.code == 0, finished.err
    moved, stayed = last_line(tmp_path / "moved"), last_line(whole)
    for name in ("loss", "gradient_norm", "theta_positive"):
        assert moved[name] == pytest.approx(stayed[name], rel=1e-4), name


def test_what_deepspeed_does_not_know_is_told_before_anything_is_written(faces: Path, tmp_path: Path) -> None:
    finished = train(tmp_path, faces, 1, "train.engine=deepspeed", "deepspeed.zero_optimization.reduce_bucket=5")
    assert (finished.code, len(finished.error_lines)) == (2, 1), finished.err
    assert "unknown key 'reduce_bucket'; the nearest known key is 'reduce_bucket_size'" in finished.err
    assert not (tmp_path / "out").exists()
