"""A run under the launcher to which things happen: what the others say, what is started again, what is returned."""

import os
import resource
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import launch, ranks_of, run, running
from rank_log import RankLog
from small_faces import make_small_faces, write_run

pytestmark = pytest.mark.integration

AGAIN = "run the same command again: it continues from the newest checkpoint"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


class Job:
    """Two ranks under the launcher, long enough for anything to happen."""

    def __init__(self, folder: Path, faces: Path, *settings: str, restarts: int = 0, steps: int = 4000) -> None:
        config = write_run(folder / "run.toml", output=folder / "out", faces=faces, steps=steps, batch_size=8)
        keys = ("checkpoint.every_steps=0", "schedule.warmup=1", *settings)
        overrides = [part for key in keys for part in ("--set", key)]
        self.command = launch(2, "train", config, *overrides, restarts=restarts)
        self.mark, self.printed = uuid.uuid4().hex, folder / "printed.txt"
        self.folder, self.log = folder, RankLog(folder / "out" / "logs" / "rank_0000.jsonl")

    def text(self) -> str:
        return self.printed.read_text()

    def wait_until(self, what: Callable[[], bool], process: "subprocess.Popen[str]", seconds: float = 150.0) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert process.poll() is None, self.text()
            assert time.monotonic() < end, self.text()
            time.sleep(0.02)

    def wait_for_steps(self, process: "subprocess.Popen[str]", *, start: int, steps: int) -> dict[int, int]:
        """The ranks' processes, when that many steps of the start of that number have been taken."""
        self.wait_until(lambda: self.log.update().starts >= start and self._steps() >= steps, process)
        return ranks_of(self.mark)

    def _steps(self) -> int:
        return self.log.step - int(self.log.events[0]["step"])


def lines(text: str, begin: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(begin)]


def test_a_slow_rank_is_named_a_failed_one_started_again_a_stop_is_final(faces: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, faces, "run.timeout_seconds=20", restarts=1)
    with running(job.command, cwd=tmp_path, mark=job.mark, printed=job.printed) as process:
        # A slow rank: half of the time it is stopped.
        ranks, slow = job.wait_for_steps(process, start=1, steps=2), "rank 1 ("
        end = time.monotonic() + 60
        while "is slow" not in job.text() and time.monotonic() < end:
            for number, seconds in ((signal.SIGSTOP, 0.04), (signal.SIGCONT, 0.02)):
                os.kill(ranks[1], number)
                time.sleep(seconds)
        assert f"warning: {slow}" in job.text()
        assert " times the median of the others, which costs all " in job.text()

        # Memory runs out on one rank: it says so, or cannot even do that, and the other one gives it up.
        in_use = int(Path(f"/proc/{ranks[0]}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(ranks[0], resource.RLIMIT_AS, (in_use, resource.RLIM_INFINITY))
        ranks = job.wait_for_steps(process, start=2, steps=2)

        # Asked by several at once, as systemd and Slurm do: one wish.
        for target in (*ranks.values(), process.pid):
            os.kill(target, signal.SIGTERM)
        assert process.wait(timeout=60) == 75, job.text()
    text = job.text()
    (told,) = lines(text, "pfc: error: rank 1: ")
    assert told.startswith("pfc: error: rank 1: rank 0 (")
    assert told.endswith(AGAIN)
    assert lines(text, "pfc launch: restart ") == ["pfc launch: restart 1 of 1"]
    assert "checkpoint written: run the same command again to continue" in text
    assert text.endswith("exit code 75\n")


def test_bad_input_on_one_rank_ends_all_and_is_not_tried_again(faces: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] - 1  # of rank 0; rank 1 finds its own one taken
        settings = (f"metrics.port={port}", 'metrics.address="127.0.0.1"')
        job = Job(tmp_path, faces, *settings, restarts=3)
        ended = run(job.command, cwd=tmp_path)
    assert ended.code == 2, ended.err
    own, other = sorted(ended.error_lines, key=lambda line: "rank 0: " in line)
    assert own.startswith("pfc: error: rank 1: metrics.port")
    assert other.startswith("pfc: error: rank 0: rank 1 (")
    assert "failed, in building the model: metrics.port" in other
    assert "restart" not in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "out").exists()


def test_asked_while_it_starts(faces: Path, tmp_path: Path) -> None:
    job = Job(tmp_path, faces, restarts=3)
    with running(job.command, cwd=tmp_path, mark=job.mark, printed=job.printed) as process:

        def listens(number: int) -> bool:
            caught = next(
                line for line in Path(f"/proc/{number}/status").read_text().splitlines() if line.startswith("SigCgt")
            )
            return bool(int(caught.split()[1], 16) >> (signal.SIGUSR1 - 1) & 1)

        job.wait_until(lambda: len(ranks_of(job.mark)) == 2, process)
        job.wait_until(lambda: all(listens(number) for number in ranks_of(job.mark).values()), process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 75, job.text()
    assert "nothing is lost" in job.text()
    assert "error" not in job.text()
    assert job.log.update().starts == 0


def test_a_second_signal_ends_at_once(faces: Path, tmp_path: Path) -> None:
    """Asked once, a run with a frozen rank cannot agree on a step."""
    job = Job(tmp_path, faces, restarts=3)
    with running(job.command, cwd=tmp_path, mark=job.mark, printed=job.printed) as process:
        ranks = job.wait_for_steps(process, start=1, steps=2)
        os.kill(ranks[1], signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        time.sleep(2.5)  # what comes sooner is the same wish
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=45) == 1, job.text()
    assert lines(job.text(), "pfc: error: ") == [
        "pfc: error: rank 0: second SIGINT: ended at once, without saving; the last checkpoint is whole"
    ]
    assert "restart" not in job.text()
    assert not list((tmp_path / "out").rglob("*.draft"))
