"""Whole runs whose embeddings become infinite on one rank: passed over, gone back, ended, as configured."""

import json
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
from checkpoint_reading import assert_identical, everything
from commands import ROOT, Finished, run
from small_faces import make_small_faces, write_run

pytestmark = pytest.mark.integration

STEPS = 16
SCRIPT = ROOT / "tests" / "support" / "poisoned_trainer.py"
SETTINGS = {"backbone.dropout": 0.0, "optimizer.lr": 0.01, "checkpoint.keep": 9, "checkpoint.keep_best": 0}
ENGINES: dict[int, dict[str, Any]] = {
    1: {},
    2: {"data.batch_size": 4, "train.engine": "deepspeed", "deepspeed.zero_optimization.stage": 2},
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


def train(folder: Path, faces: Path, ranks: int, poisoned: str, **failure: object) -> Finished:
    config = write_run(folder / "run.toml", output=folder / "out", faces=faces, steps=STEPS)
    settings = SETTINGS | ENGINES[ranks] | {f"failure.{key}": value for key, value in failure.items()}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    launcher = [sys.executable]
    if ranks > 1:
        torchrun = Path(sysconfig.get_path("scripts")) / "torchrun"
        launcher += [str(torchrun), "--standalone", "--nproc-per-node", str(ranks)]
    return run([*launcher, str(SCRIPT), poisoned, "train", str(config), *sets], cwd=folder)


def final_state(folder: Path) -> dict[str, Any]:
    found = everything(folder / "out" / "checkpoints" / f"step_{STEPS:08d}")
    del found["shared"]["passed"]
    return found


def events(folder: Path, name: str, rank: int = 0) -> list[dict[str, Any]]:
    lines = (folder / "out" / "logs" / f"rank_{rank:04d}.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_goes_back_and_on_with_what_follows(ranks: int, faces: Path, tmp_path: Path) -> None:
    back, skipped = tmp_path / "back", tmp_path / "skipped"
    back.mkdir()
    skipped.mkdir()
    # Steps 6 and 7 learn something; 8, 9 and 10 are not finite, so the weights of step 5 come back.
    finished = train(back, faces, ranks, "8,9,10,11,13", max_skipped_in_a_row=3)
    assert finished.code == 0, finished.err
    assert "step 8: the loss is not finite" in finished.err
    assert "step 10: back to the weights of step 5; going on with the images that follow" in finished.err
    for rank in range(ranks):
        assert [event["step"] for event in events(back, "step not finite", rank)] == [8, 9, 10, 11, 13]
        assert [(event["step"], event["to_step"]) for event in events(back, "rolled back", rank)] == [(10, 5)]
    # Of step 10, amid the bad ones, there is no checkpoint.
    assert sorted(path.name for path in (back / "out" / "checkpoints").iterdir()) == [
        "step_00000005",
        "step_00000015",
        "step_00000016",
    ]
    lines = [json.loads(line) for line in (back / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["nonfinite_steps"] for line in lines] == [0] * 7 + [1, 2, 3, 4, 4, 5, 5, 5, 5]
    assert [line["loss"] is None for line in lines] == [step in (8, 9, 10, 11, 13) for step in range(1, STEPS + 1)]
    assert [line["gradient_norm"] is None for line in lines] == [line["loss"] is None for line in lines]

    # The same as if nothing had been learned in steps 6 to 11 and 13 at all.
    finished = train(skipped, faces, ranks, "6,7,8,9,10,11,13", non_finite="skip")
    assert finished.code == 0, finished.err
    assert_identical(final_state(back), final_state(skipped))


def test_a_run_ends_where_going_back_does_not_help(faces: Path, tmp_path: Path) -> None:
    finished = train(tmp_path, faces, 1, "8-", max_skipped_in_a_row=3)
    assert (finished.code, len(finished.error_lines)) == (1, 1)
    assert "the loss is not finite" in finished.err
    assert "in 3 steps in a row, and there is no older checkpoint to go back to: lower optimizer.lr" in finished.err
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step_00000005"]
    # Mended, the run goes on from there.
    finished = train(tmp_path, faces, 1, "99", max_skipped_in_a_row=3)
    assert finished.code == 0, finished.err
    assert "continuing at step 5" in finished.err
