"""Killed or stopped anywhere and started again = never interrupted, bit for bit on CPU."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from checkpoint_reading import assert_identical, everything
from commands import pfc, run, running, torchrun
from small_faces import make_small_faces, write_run

pytestmark = pytest.mark.integration

STEPS = 24


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


def train_command(ranks: int, config: Path) -> list[str]:
    if ranks == 1:
        return pfc("train", config)
    # Two ranks sample classes as well: the draw of negatives must go on where it stood.
    sampled = ["--set", "head.loss=cosface", "--set", "head.sample_rate=0.4"] if ranks == 2 else []
    return torchrun(ranks, "train", config, *sampled)


def last_step(output: Path) -> int:
    journal = output / "metrics.jsonl"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def wait_for_step(process: subprocess.Popen[str], output: Path, step: int, deadline_seconds: float = 90.0) -> None:
    end = time.monotonic() + deadline_seconds
    while last_step(output) < step:
        assert process.poll() is None, f"ended early with {process.returncode}: {process.communicate()[1]}"
        assert time.monotonic() < end, f"step {step} was not reached in {deadline_seconds} s"
        time.sleep(0.02)


def final_state(output: Path) -> dict[str, Any]:
    folder = output / "checkpoints" / f"step_{STEPS:08d}"
    return everything(folder)


def learning_curve(output: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines]


def workers_of(launcher: int) -> list[int]:
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return [int(child) for child in children]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_interrupted_run_equals_the_uninterrupted_one(ranks: int, faces: Path, tmp_path: Path) -> None:
    batch_size = {1: 8, 2: 5, 3: 4}[ranks]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for name, output in (("whole.toml", whole), ("broken.toml", broken)):
        write_run(tmp_path / name, output=output, faces=faces, steps=STEPS, batch_size=batch_size)
    finished = run(train_command(ranks, tmp_path / "whole.toml"), cwd=tmp_path)
    assert finished.code == 0, finished.err

    # Stopped on request: the signal reaches the launcher, as from Kubernetes or Slurm.
    command = train_command(ranks, tmp_path / "broken.toml")
    with running(command, cwd=tmp_path) as process:
        wait_for_step(process, broken, 3)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=90)
        if ranks == 1:
            assert process.returncode == 75, err
            assert "checkpoint written: run the same command again" in err
    saved = sorted((broken / "checkpoints").glob("step_*"))
    assert len(saved) == 1
    assert int(saved[0].name.removeprefix("step_")) < STEPS, "stopped before its end"

    # Killed without warning, between two checkpoints.
    stopped_at = last_step(broken)
    if stopped_at < STEPS - 6:
        with running(command, cwd=tmp_path) as process:
            wait_for_step(process, broken, stopped_at + 3)
            victim = process.pid if ranks == 1 else workers_of(process.pid)[-1]
            os.kill(victim, signal.SIGKILL)
            process.communicate(timeout=90)
            assert process.returncode != 0

    finished = run(command, cwd=tmp_path)
    assert finished.code == 0, finished.err
    assert "continuing at step" in finished.err
    assert_identical(final_state(broken), final_state(whole))
    assert learning_curve(broken) == learning_curve(whole)

    if ranks == 3:  # what follows takes as many processes again, and does not depend on how many there are
        return
    again = run(command, cwd=tmp_path)
    assert again.code == 0
    assert f"this run has taken all its {STEPS} steps, nothing is left to train" in again.err
    assert learning_curve(broken) == learning_curve(whole)
