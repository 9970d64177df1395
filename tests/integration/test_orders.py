"""Training with every order: partial last batches on two ranks, balanced batches, and what is refused at the start."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
import tomli_w
from checkpoint_reading import assert_identical, everything
from commands import pfc, run_warm, torchrun
from small_faces import make_small_faces, write_run

from trainer.checkpoint import read_description

pytestmark = pytest.mark.integration

IMAGES = 63  # 9 identities x 7


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


def sets(*overrides: str) -> list[str]:
    return [part for override in overrides for part in ("--set", override)]


def journal(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_train_on_a_partial_last_batch_and_resume_before_it(faces: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    # Global batches of 16 leave 15 images: 7 for one rank, 8 for the other.
    config = write_run(tmp_path / "run.toml", output=whole, faces=faces, steps=8, batch_size=8)
    options = sets(
        "data.order=blocks", "data.block_images=5", "data.window_blocks=4", "data.drop_last=false",
        "checkpoint.every_steps=3", "evaluation.pairs=[]",
    )  # fmt: skip
    finished = run_warm(torchrun(2, "train", config, *options), cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "8 steps of 4 an epoch" in finished.err
    assert [line["samples"] for line in journal(whole)] == [16, 32, 48, 63, 79, 95, 111, 126]

    shutil.copytree(whole, broken)
    for late in ("step_00000006", "step_00000008"):
        shutil.rmtree(broken / "checkpoints" / late)
    again = run_warm(torchrun(2, "train", config, *options, "--set", f"run.output={broken}"), cwd=tmp_path)
    assert again.code == 0, again.err
    assert "continuing at step 3" in again.err
    assert_identical(*(everything(output / "checkpoints" / "step_00000008") for output in (broken, whole)))
    assert [(line["step"], line["samples"], line["loss"]) for line in journal(broken)] == [
        (line["step"], line["samples"], line["loss"]) for line in journal(whole)
    ]


def test_balanced_batches_train(faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces, steps=3)
    options = sets(
        "data.identities_per_batch=4", "data.images_per_identity=2", "data.drop_last=false", "evaluation.pairs=[]",
        "schedule.warmup=0",
    )  # fmt: skip
    finished = run_warm(pfc("train", config, *options), cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "3 steps of 7 an epoch" in finished.err
    assert [line["samples"] for line in journal(tmp_path / "out")] == [8, 16, 24]


def test_a_run_begun_before_these_keys_existed_goes_on(faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=5)
    command = pfc("train", config, *sets("checkpoint.every_steps=3", "evaluation.pairs=[]"))
    assert run_warm(command, cwd=tmp_path).code == 0
    shutil.rmtree(output / "checkpoints" / "step_00000005")
    written = tomllib.loads((output / "run.toml").read_text())
    for key in ("order", "drop_last", "block_images", "window_blocks"):
        del written["data"][key]
    (output / "run.toml").write_text(tomli_w.dumps(written))
    checkpoint = output / "checkpoints" / "step_00000003"
    description = read_description(checkpoint)
    for key in ("block_images", "window_blocks", "identities_per_batch", "images_per_identity"):
        del description.loader[key]
    description.write(checkpoint)
    finished = run_warm(command, cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "continuing at step 3" in finished.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data.drop_last=false", "data.batch_size=31"],
            "the last batch of an epoch has 1 images, so a rank of 1 gets 1, but batch normalisation needs at least 2",
        ),
        (["data.identities_per_batch=3", "data.images_per_identity=2"], "is 6, but the global batch (batch_size x"),
    ],
)
def test_orders_that_cannot_work_are_refused(faces: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    finished = run_warm(pfc("train", config, *sets(*overrides)), cwd=tmp_path)
    assert (finished.code, len(finished.err.strip().splitlines())) == (2, 1), finished.err
    assert message in finished.error_lines[0]
    assert not (tmp_path / "out").exists()
