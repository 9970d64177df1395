"""Two ranks under DeepSpeed leave by every door: in time, with the right code, without a trace of an abort.

Whole commands under the launcher; a rank asks itself to stop at a chosen place, so that it is the same in every run.
"""

import signal
import socket
import sys
from pathlib import Path

import pytest
from commands import ROOT, Finished, run
from growing import NEW, OLD, write_people
from growing_runs import write_run
from training_here import train_here

from trainer.checkpoint import complete_checkpoints

pytestmark = pytest.mark.integration

SCRIPT = ROOT / "tests" / "support" / "interrupted_trainer.py"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An old run, and a data set to grow onto."""
    folder = tmp_path_factory.mktemp("people")
    records = write_people(folder / "old people", OLD)
    write_people(folder / "new people", NEW)
    assert train_here(write_run(folder / "run.toml", output=folder / "run", records=records, steps=2)) == 0
    return folder


def leave(folder: Path, people: Path, place: str, stage: int, *settings: str, grows: bool = False) -> Finished:
    """Rank 1 alone is asked to stop at ``place``."""
    config = write_run(
        folder / "run.toml",
        output=folder / "out",
        records=people / "new people",
        old=people / "run" if grows else None,
        steps=6,
        batch_size=3,
    )
    keys = ("train.engine=deepspeed", f"deepspeed.zero_optimization.stage={stage}", *settings)
    launcher = [sys.executable, "-m", "deploy.launch.agent", "--nproc-per-node", "2", "--max-restarts", "0"]
    overrides = [part for key in keys for part in ("--set", key)]
    arguments = [place, str(int(signal.SIGTERM)), "1", "train", str(config), *overrides]
    ended = run([*launcher, str(SCRIPT), *arguments], cwd=folder)
    for sign in ("Traceback", "terminate called", "Timeout (", "Fatal Python error", "SIGABRT", "Exception ignored"):
        assert sign not in ended.err, ended.err
    return ended


def check_stopped(ended: Finished, told: str) -> None:
    assert ended.code == 75, ended.err
    assert told in ended.err
    assert "error" not in ended.err
    assert ended.err.count("engine closed, nothing is left to stop") == 2, "by both ranks together"
    assert "engine abandoned" not in ended.err


def test_asked_before_the_first_step(people: Path, tmp_path: Path) -> None:
    ended = leave(tmp_path, people, "built", 3)
    check_stopped(ended, "stopped on request before the first step, nothing is lost")
    assert not (tmp_path / "out").exists()


def test_asked_while_growing(people: Path, tmp_path: Path) -> None:
    ended = leave(tmp_path, people, "embedding", 3, grows=True)
    check_stopped(ended, "stopped on request while growing, nothing is written yet")
    assert not (tmp_path / "out").exists()


def test_asked_between_two_steps(people: Path, tmp_path: Path) -> None:
    ended = leave(tmp_path, people, "step 3", 2)
    check_stopped(ended, "stopped on request at step 3 of 6, checkpoint written")
    assert [path.name for path in complete_checkpoints(tmp_path / "out")] == ["step_00000002", "step_00000003"]


def test_bad_input_of_one_rank_alone(people: Path, tmp_path: Path) -> None:
    """Found when the engine is there: that rank leaves without the other, which hears of it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] - 1  # of rank 0; rank 1 finds its own one taken
        ended = leave(tmp_path, people, "nowhere", 3, f"metrics.port={port}", 'metrics.address="127.0.0.1"')
    assert ended.code == 2, ended.err
    own, other = sorted(ended.error_lines, key=lambda line: "rank 0: " in line)
    assert own.startswith("pfc: error: rank 1: metrics.port")
    assert other.startswith("pfc: error: rank 0: rank 1 (")
    assert "engine abandoned" in ended.err
    assert "engine closed" not in ended.err
    assert not (tmp_path / "out").exists()
