"""Runs in the background of this machine, from their submission to their end."""

import signal
import time
from collections.abc import Callable, Iterator
from os import kill
from pathlib import Path

import pytest
from commands import marked
from rank_log import RankLog
from small_faces import make_small_faces, write_run
from submitting import Account, account

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Account]:
    with account(tmp_path) as made:
        yield made


def wait_until(condition: Callable[[], bool], what: str, *, deadline_seconds: float = 120.0) -> None:
    end = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def wait_for_step(output: Path, step: int, *, starts: int = 1) -> None:
    log = RankLog(output / "logs" / "rank_0000.jsonl")

    def reached() -> bool:
        log.update()
        return log.starts >= starts and log.step >= step

    wait_until(reached, f"{output} does not reach step {step}")


def test_two_nodes_survive_the_loss_of_a_rank(user: Account, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "My Faces_1"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=120)
    submit = ("submit", "local", config, "--nodes", "2", "--set", "failure.silence_seconds=5")
    started = user.done(*submit)
    assert started.splitlines()[0].startswith("my-faces-1: started 2 nodes of 1 rank")
    wait_for_step(output, 7)
    kill(user.ranks()[1], signal.SIGKILL)
    assert user.status("my-faces-1")["state"] == "running"
    assert "a run called 'my-faces-1' is running (local)" in user.refused(*submit)
    followed = user.pfc("logs", "my-faces-1", "--follow", deadline_seconds=200)
    assert followed.code == 0
    status = user.wait_until_ended("my-faces-1")
    assert (status["state"], status["exit_code"]) == ("done", 0), followed.out
    # Every node's launcher ended, and both were started again, from a checkpoint.
    outputs = sorted(path.name for path in (user.state / "my-faces-1" / "output").iterdir())
    assert outputs == [f"attempt-{attempt:04d}-node-{node}.log" for attempt in (1, 2) for node in (0, 1)]
    assert "rank 1 was ended by SIGKILL" in (user.state / "my-faces-1" / "output" / outputs[1]).read_text()
    last = user.done("logs", "my-faces-1")
    assert "node 0: continuing at step " in last
    assert "continuing" not in user.done("logs", "my-faces-1", "--rank", "1")
    assert (output / "checkpoints" / "step_00000120").is_dir()
    assert "'my-faces-1' is not running: done" in user.refused("cancel", "my-faces-1")
    assert user.done("status").splitlines() == ["my-faces-1              local       done (exit code 0)"]


def test_cancelled_once_it_writes_a_checkpoint(user: Account, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=5000)
    user.done("submit", "local", config, "--set", "checkpoint.every_steps=0")
    wait_for_step(output, 2)
    assert "belongs to 'out', which is running (local)" in user.refused("submit", "local", config, "--name", "another")
    assert "asked to stop" in user.done("cancel", "out")
    status = user.wait_until_ended("out")
    assert (status["state"], status["exit_code"]) == ("cancelled", 75)
    assert len(list((output / "checkpoints").glob("step_*"))) == 1
    assert isinstance(status["cancelled"], list)
    assert len(status["cancelled"]) == 1


def test_a_dry_run_and_what_is_refused_leave_no_trace(user: Account, faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    submit = ("submit", "local", config)
    shown = user.done(*submit, "--nodes", "2", "--dry-run", "--set", "optimizer.lr=0.25", "--env", "NOTE=1 2")
    assert "#   lr = 0.25\n" in shown
    commands = [line for line in shown.splitlines() if line.startswith("env ")]
    assert [f"PET_NODE_RANK={node} " in line for node, line in enumerate(commands)] == [True, True]
    assert all("'NOTE=1 2'" in line for line in commands)
    assert "the nearest known key is 'data.batch_size'" in user.refused(*submit, "--set", "data.batchsize=4")
    assert "9 identities for 10 ranks" in user.refused(*submit, "--ranks-per-node", "10", "--set", "data.batch_size=2")
    line = user.refused(*submit, "--env", "WANDB_API_KEY=hush")
    assert "looks like a secret" in line
    assert "hush" not in line
    assert "--name Mine" in user.refused(*submit, "--name", "Mine")
    assert "no run called 'out' was submitted from here" in user.refused("status", "out")
    assert {path.name for path in tmp_path.iterdir()} == {".tmp", "run.toml"}


def test_bad_input_is_not_started_again(user: Account, faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    user.done("submit", "local", config, "--no-data", "--set", f"data.records={tmp_path / 'absent.rec'}")
    followed = user.pfc("logs", "out", "--follow")
    assert (followed.code, followed.err.splitlines()[-1][:30]) == (2, "out: bad input (exit code 2): ")
    status = user.status("out")
    assert (status["state"], status["exit_code"]) == ("bad input", 2)
    assert "absent.rec" in user.done("logs", "out")
    assert len(list((user.state / "out" / "output").iterdir())) == 1


def test_a_killed_supervisor_takes_the_run_with_it(user: Account, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=5000)
    user.done("submit", "local", config)
    wait_for_step(output, 2)
    (supervisor,) = (
        process
        for process in marked(user.mark)
        if b"deploy.submit.local_supervisor" in Path(f"/proc/{process}/cmdline").read_bytes()
    )
    kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not marked(user.mark), "its launchers and ranks live on")
    status = user.status("out")
    assert status["state"] == "failed"
    assert "its supervisor was killed" in str(status["detail"])
