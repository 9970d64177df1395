"""Runs on a real Slurm: queued, lost, queued again, cancelled, refused."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port
from rank_log import RankLog
from slurm_cluster import Cluster, cluster, missing
from small_faces import make_small_faces, write_run
from submitting import Account, account

pytestmark = [pytest.mark.system, pytest.mark.skipif(missing() != "", reason=missing())]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as made:
        yield made


@pytest.fixture
def user(slurm: Cluster, tmp_path: Path) -> Iterator[Account]:
    with account(tmp_path, **slurm.settings) as made:
        yield made


def wait_until(condition: Callable[[], bool], told: Callable[[], str], *, deadline_seconds: float = 150.0) -> None:
    end = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.2)


def wait_for_step(user: Account, name: str, output: Path, step: int) -> None:
    log = RankLog(output / "logs" / "rank_0000.jsonl")
    wait_until(lambda: log.update().step >= step, lambda: user.pfc("logs", name).out)


def ended(slurm: Cluster, user: Account, name: str) -> dict[str, object]:
    """Its status once it has: Slurm is asked until then, whose programs need no time of the processor."""
    wait_until(
        lambda: slurm.ask("squeue", "--noheader", f"--name={name}", "--format=%T") == "",
        lambda: user.pfc("logs", name).out,
        deadline_seconds=200,
    )
    return user.wait_until_ended(name)


def start_sooner(slurm: Cluster, user: Account, name: str, job: str) -> None:
    """Once it is queued again, where Slurm would have it wait for two minutes: as the user is told to."""

    def waits() -> bool:
        return slurm.ask("squeue", "--noheader", f"--jobs={job}", "--format=%T %r").split() == ["PENDING", "BeginTime"]

    wait_until(waits, lambda: user.pfc("logs", name).out)
    # An srun that is left over ends its step by number some seconds later, and the next start's has the same.
    wait_until(lambda: not slurm.processes_of(job), lambda: str(slurm.processes_of(job)))
    status = user.status(name)
    assert status["state"] == "waiting"
    advice = str(status["detail"]).partition("(BeginTime); sooner: ")[2]
    assert advice == f"scontrol update jobid={job} starttime=now"
    slurm.ask(*advice.split())


def test_killed_ranks_are_started_again_here_and_then_from_the_queue(
    slurm: Cluster, user: Account, faces: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=60)
    submit = ("submit", "slurm", config, "--nodes", "2", "--cpus", "1", "--set", "failure.silence_seconds=5")
    submit = (*submit, "--name", "two-nodes", "--env", 'NOTE=it\'s 1 "note"')
    shown = user.done(*submit, "--dry-run")
    assert not user.state.exists(), "a dry run writes nothing"
    assert user.done(*submit).startswith("two-nodes: Slurm's job ")
    job = slurm.ask("squeue", "--noheader", "--name=two-nodes", "--format=%A").strip()
    assert slurm.ask("scontrol", "write", "batch_script", job, "-") == shown, "sent is what was shown"
    log = RankLog(output / "logs" / "rank_0000.jsonl")
    for starts in (1, 2):

        def has_taken_steps(starts: int = starts) -> bool:
            saved = any((output / "checkpoints").glob("step_" + "[0-9]" * 8))  # there is something to continue from
            return log.update().starts == starts and log.step >= log.events[0]["step"] + 6 and saved

        wait_until(has_taken_steps, lambda: user.pfc("logs", "two-nodes").out)
        assert user.ranks().keys() == {0, 1}
        lost = user.ranks()[1]
        assert b'NOTE=it\'s 1 "note"' in Path(f"/proc/{lost}/environ").read_bytes().split(b"\0")
        os.kill(lost, signal.SIGKILL)
    assert "a run called 'two-nodes' is " in user.refused(*submit)
    start_sooner(slurm, user, "two-nodes", job)
    status = ended(slurm, user, "two-nodes")
    told = user.done("logs", "two-nodes", "--follow")
    assert (status["state"], status["exit_code"]) == ("done", 0), told
    assert "pfc slurm: failure 1 of at most 3: started again on the same nodes" in told
    assert "pfc slurm: failure 2 of at most 3: Slurm queues it again" in told
    assert "node 1: pfc launch: rank 1 was ended by SIGKILL: exit code 1" in told
    assert "node 0: continuing at step " in told
    of_second = user.done("logs", "two-nodes", "--rank", "1")
    assert "rank 1 was ended by SIGKILL" in of_second
    assert "continuing at step" not in of_second
    assert (output / "checkpoints" / "step_00000060").is_dir()
    assert "is not running: done" in user.refused("cancel", "two-nodes")


def test_a_node_that_fails(slurm: Cluster, user: Account, faces: Path, tmp_path: Path) -> None:
    """Slurm ends the job on all nodes, and queues it again itself."""
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=50_000)
    user.done("submit", "slurm", config, "--nodes", "2")
    log = RankLog(output / "logs" / "rank_0000.jsonl")
    wait_until(lambda: log.update().step >= 7, lambda: user.pfc("logs", "out").out)
    job = slurm.ask("squeue", "--noheader", "--name=out", "--format=%A").strip()
    assert len(slurm.processes_of(job)) >= 4, "batch script, srun, a launcher on each node"
    slurm.ask("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    try:
        start_sooner(slurm, user, "out", job)
    finally:
        slurm.ask("scontrol", "update", "nodename=n2", "state=idle")
    wait_until(lambda: log.update().starts == 2 and log.step >= 8, lambda: user.pfc("logs", "out").out)
    assert "DUE TO NODE FAILURE" in user.done("logs", "out")
    user.done("cancel", "out")
    assert ended(slurm, user, "out")["state"] == "cancelled"


def test_cancelled_it_stays_out_of_the_queue(slurm: Cluster, user: Account, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=50_000)
    user.done("submit", "slurm", config, "--nodes", "2", "--set", "checkpoint.every_steps=0")
    wait_for_step(user, "out", output, 2)
    assert "asked to stop" in user.done("cancel", "out")
    status = ended(slurm, user, "out")
    assert (status["state"], status["exit_code"]) == ("cancelled", 75), user.pfc("logs", "out").out
    assert len(list((output / "checkpoints").glob("step_*"))) == 1
    assert slurm.ask("squeue", "--noheader", "--name=out") == ""
    assert "ended with code 75, cancelled" in user.done("logs", "out")


def test_before_its_time_limit_it_goes_back_into_the_queue(
    slurm: Cluster, user: Account, faces: Path, tmp_path: Path
) -> None:
    """Slurm's warning is sent by hand: the shortest time limit that it knows would take minutes."""
    output = tmp_path / "out"
    config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=50_000)
    user.done("submit", "slurm", config, "--time-limit", "1800", "--set", "checkpoint.every_steps=0")
    wait_for_step(user, "out", output, 2)
    job = slurm.ask("squeue", "--noheader", "--name=out", "--format=%A").strip()
    assert "TimeLimit=00:30:00" in slurm.ask("scontrol", "show", "job", job)
    slurm.ask("scancel", "--batch", "--signal=USR1", job)
    waiting = ("squeue", "--noheader", "--name=out", "--states=PENDING", "--format=%r")
    wait_until(lambda: slurm.ask(*waiting) == "BeginTime\n", lambda: user.pfc("logs", "out").out)
    assert user.status("out")["state"] == "waiting"
    assert "stopped with code 75 before the time limit: Slurm queues it again" in user.done("logs", "out")
    assert len(list((output / "checkpoints").glob("step_*"))) == 1
    assert "is taken from Slurm" in user.done("cancel", "out")
    assert ended(slurm, user, "out")["state"] == "cancelled"


def test_bad_input_is_not_queued_again(slurm: Cluster, user: Account, faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    user.done("submit", "slurm", config, "--no-data", "--set", f"data.records={tmp_path / 'absent.rec'}")
    status = ended(slurm, user, "out")
    assert (status["state"], status["exit_code"]) == ("bad input", 2), user.pfc("logs", "out").out
    assert "absent.rec" in user.done("logs", "out")


def test_refused_by_slurm(slurm: Cluster, user: Account, faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    submit = ("submit", "slurm", config)
    assert "--queue nope: Slurm has no such partition; it has closed, main" in user.refused(*submit, "--queue", "nope")
    assert "this user may not" in user.refused(*submit, "--queue", "closed")
    assert user.done("status") == "no run was submitted from here\n"
    user.done(*submit, "--nodes", "3")
    told = "the partition does not have what it asks for"
    wait_until(lambda: told in str(user.status("out")["detail"]), lambda: str(user.status("out")))
    user.done("cancel", "out")
    working = Path(slurm.settings["SLURM_CONF"]).read_text()
    elsewhere = tmp_path / "slurm.conf"
    elsewhere.write_text(re.sub(r"(?m)^SlurmctldPort=.*", f"SlurmctldPort={free_port()}", working))
    user.settings["SLURM_CONF"] = str(elsewhere)
    assert "Slurm's controller does not answer" in user.refused(*submit, code=1)
    user.settings["SLURM_CONF"] = str(tmp_path / "absent.conf")
    assert "absent.conf: there is no such file; mend it, or unset it" in user.refused(*submit)
