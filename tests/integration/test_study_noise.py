"""``pfc study noise`` as a user types it: stopped, killed and repeated, it ends in the files of an undisturbed one."""

import os
import signal
import time
import uuid
from pathlib import Path

import pytest
from commands import Finished, marked, pfc, run_warm, running

pytestmark = pytest.mark.integration

RUN = """
[run]
output = "unused"
device = "cpu"
[data]
records = "faces"
image_size = 32
batch_size = 8
[backbone]
embedding_dim = 16
[schedule]
warmup = 2
[train]
steps = 30
[evaluation]
pairs = ["faces/verification.bin"]
[checkpoint]
every_steps = 5
"""
FILES = ("results.json", "table.md", "noise.png", "report.html")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    synth = ["--identities", "6", "--images-per-identity", "6", "--unseen-identities", "8", "--pairs", "40"]
    drawn = run_warm(pfc("data", "synth", "faces", *synth, "--image-size", "32", "--style", "simple"), cwd=folder)
    assert drawn.code == 0, drawn.err
    (folder / "run.toml").write_text(RUN)
    return folder


def command(output: str, *more: str) -> list[str]:
    options = ["--losses", "sface", "--closed-set", "0.4", "--seeds", "3", *more]
    return pfc("study", "noise", "run.toml", "--output", output, *options)


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def wait_for(path: Path) -> None:
    end = time.monotonic() + 90
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def test_stopped_and_killed_it_goes_on_to_the_same_end(folder: Path) -> None:
    undisturbed = run_warm(command("whole"), cwd=folder, deadline_seconds=200)
    assert undisturbed.code == 0, undisturbed.err
    assert "closed set, 40%" in undisturbed.out
    assert [line.split(":")[0] for line in undisturbed.err.splitlines() if "/2 " in line] == [
        "1/2 sface_clean_seed_3",
        "2/2 sface_closed_40_seed_3",
    ]

    first = folder / "cut" / "runs" / "sface_clean_seed_3"
    with running(command("cut"), cwd=folder) as process:
        wait_for(first / "checkpoints" / "step_00000005")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=90)
    assert process.returncode == 75, err
    assert "run the same command again" in err
    assert not (folder / "cut" / "results.json").exists()
    assert not first.with_name("sface_clean_seed_3.done").exists()

    mark = uuid.uuid4().hex
    with running(command("cut"), cwd=folder, mark=mark) as process:
        wait_for(folder / "cut" / "runs" / "sface_closed_40_seed_3" / "checkpoints" / "step_00000005")
        trained = first.with_name("sface_clean_seed_3.done").stat().st_mtime_ns
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        (training,) = [number for number in marked(mark) if is_training(number)]
        os.kill(training, signal.SIGSTOP)  # it must not end before the next one looks
        refused = run_warm(command("cut"), cwd=folder)
    assert refused.code == 2, refused.err
    assert "a training that it left, is at work" in refused.err

    again = run_warm(command("cut"), cwd=folder, deadline_seconds=200)
    assert again.code == 0, again.err
    assert first.with_name("sface_clean_seed_3.done").stat().st_mtime_ns == trained, "it is not trained again"
    assert files(folder / "cut") == files(folder / "whole")


def is_training(number: int) -> bool:
    return b"train\0" in Path(f"/proc/{number}/cmdline").read_bytes()


def test_what_is_trained_is_of_its_configuration(folder: Path) -> None:
    if not (folder / "whole" / "results.json").exists():
        assert run_warm(command("whole"), cwd=folder, deadline_seconds=200).code == 0
    other = run_warm(command("whole", "--set", "optimizer.lr=0.3"), cwd=folder)
    assert_bad_input(other, "is of another study")
    assert_bad_input(run_warm(command("new", "--open-set", "0.2"), cwd=folder), "--distractors")
    assert_bad_input(run_warm(command("new", "--closed-set", "20"), cwd=folder), "between 0 and 1")
    assert not (folder / "new").exists()


def test_a_training_that_fails_or_is_too_slow_ends_the_study_in_one_line(folder: Path) -> None:
    slow = run_warm(command("slow", "--run-minutes", "0.01"), cwd=folder)
    assert slow.code == 1
    assert "took more than 0.01 min" in slow.error_lines[0]
    failing = run_warm(command("failing", "--set", "backbone.name=vit_t", "--set", "backbone.patch_size=5"), cwd=folder)
    assert failing.code == 1
    assert "sface_clean_seed_3 ended with code 2" in failing.error_lines[0]
    assert "patches of 5 pixels" in failing.error_lines[0]
    assert len(failing.error_lines) == 1


def assert_bad_input(finished: Finished, complaint: str) -> None:
    assert finished.code == 2, finished.err
    (line,) = finished.error_lines
    assert complaint in line
