"""Two hosts, a slow link that loses frames: the same training as on one host, through every kind of failure.

One run goes through all of it: each test finds it where the one before has left it, and lets it go on.
"""

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from checkpoint_reading import assert_identical, everything
from commands import launch, marked, run, running
from rank_log import RankLog
from small_faces import make_small_faces, write_run
from two_hosts import Host, Link, missing, two_hosts

pytestmark = [pytest.mark.system, pytest.mark.skipif(missing() != "", reason=missing())]

STEPS = 30
PORT = 29417
PROMISE_SECONDS = 60.0


@dataclass
class Agents:
    """The launchers of both hosts, and by what mark their processes are found."""

    processes: list["subprocess.Popen[str]"]
    marks: list[str]
    printed: list[Path]

    def codes(self) -> list[int]:
        """Exit codes, within the promised time."""
        end = time.monotonic() + PROMISE_SECONDS
        return [process.wait(timeout=max(0.1, end - time.monotonic())) for process in self.processes]

    def lines(self, host: int) -> list[str]:
        return [line for line in self.printed[host].read_text().splitlines() if line.startswith("pfc")]

    def nobody_is_left(self) -> bool:
        end = time.monotonic() + 5
        while any(marked(mark) for mark in self.marks) and time.monotonic() < end:
            time.sleep(0.02)
        return not any(marked(mark) for mark in self.marks)


@dataclass
class Run:
    """A run on two hosts, started again and again."""

    hosts: tuple[Host, Host]
    link: Link
    folder: Path
    output: Path
    arguments: list[str]
    launches: int = field(default=0)

    def __post_init__(self) -> None:
        self._log = RankLog(self.output / "logs" / "rank_0000.jsonl")

    @contextmanager
    def started(self, *, hosts: tuple[int, ...] = (0, 1)) -> Iterator[Agents]:
        """The launchers, as a scheduler starts them: by PET_* variables. Where both are, waits for some steps."""
        self.launches += 1
        starts = self._log.update().starts
        with ExitStack() as stack:
            agents = Agents([], [], [])
            for number in hosts:
                host = self.hosts[number]
                settings = {
                    "NNODES": 2,
                    "NPROC_PER_NODE": 1,
                    "NODE_RANK": number,
                    "MASTER_ADDR": self.hosts[0].address,
                    "MASTER_PORT": PORT,
                }
                words = [f"PET_{key}={value}" for key, value in settings.items()]
                command = [sys.executable, "-m", "deploy.launch.agent", "-m", "trainer", *self.arguments]
                mark, printed = uuid.uuid4().hex, self.folder / f"launch{self.launches}-{number}.txt"
                agents.processes.append(
                    stack.enter_context(
                        running(host.command(["env", *words, *command]), cwd=self.folder, mark=mark, printed=printed)
                    )
                )
                agents.marks.append(mark)
                agents.printed.append(printed)
            if len(hosts) == 2:
                self._wait(agents, starts, 3)
            yield agents

    def _wait(self, agents: Agents, starts: int, steps: int) -> None:
        end, first = time.monotonic() + 120, None
        while True:
            log = self._log.update()
            if log.starts > starts:
                first = log.events[0]["step"]
                if log.step >= first + steps:
                    return
            assert all(process.poll() is None for process in agents.processes), [
                path.read_text() for path in agents.printed
            ]
            assert time.monotonic() < end, [path.read_text() for path in agents.printed]
            time.sleep(0.02)

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.output / "checkpoints").glob("*"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


@pytest.fixture(scope="module")
def the_run(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("two_hosts")
    config = write_run(folder / "run.toml", output=folder / "out", faces=faces, steps=STEPS, batch_size=8)
    limits = ["--set", "failure.silence_seconds=3", "--set", "checkpoint.every_steps=10"]
    with two_hosts(delay_seconds=0.001, loss=0.002) as (first, second, link):
        yield Run((first, second), link, folder, folder / "out", ["train", str(config), *limits])


def test_one_launcher_is_asked_and_both_stop(the_run: Run) -> None:
    with the_run.started() as agents:
        agents.processes[1].send_signal(signal.SIGTERM)
        assert agents.codes() == [75, 75]
        assert agents.nobody_is_left()
        assert "rank 0 exited with 75: exit code 75" in agents.lines(0)[-1]
    assert len(the_run.checkpoints()) == 1
    assert the_run.link.lost > 0, "a link that loses nothing proves little"


def test_the_launcher_of_the_second_host_is_killed(the_run: Run) -> None:
    with the_run.started() as agents:
        agents.processes[1].kill()
        assert agents.codes() == [1, -signal.SIGKILL]
        assert agents.nobody_is_left(), "its worker has ended with it"
        told = next(line for line in agents.lines(0) if line.startswith("pfc: error: rank 0: "))
        assert "rank 1 (host-2, process " in told
        assert "has been silent" in told


def test_the_launcher_of_the_first_host_is_killed(the_run: Run) -> None:
    with the_run.started() as agents:
        agents.processes[0].kill()
        assert agents.codes() == [-signal.SIGKILL, 1]
        assert agents.nobody_is_left()
        told = next(line for line in agents.lines(1) if line.startswith("pfc: error: rank 1: "))
        assert "the store where the ranks meet is gone, with rank 0 or the launcher of the first node" in told


def test_the_link_is_cut(the_run: Run) -> None:
    with the_run.started() as agents:
        the_run.link.cut()
        try:
            assert agents.codes() == [1, 1]
        finally:
            the_run.link.mend()
        assert agents.nobody_is_left()
        first, second = (
            next(line for line in agents.lines(host) if line.startswith("pfc: error: ")) for host in (0, 1)
        )
        assert "rank 1 (host-2, process " in first
        assert "killed, frozen, or its machine or link is lost" in first
        assert "no answer from the store where the ranks meet" in second


def test_a_launcher_asked_while_it_waits_for_the_other(the_run: Run) -> None:
    with the_run.started(hosts=(0,)) as agents:
        listening = f":{PORT:04X} " + "0" * 32 + ":0000 0A"
        table, end = Path(f"/proc/{agents.processes[0].pid}/net/tcp6"), time.monotonic() + 60
        while listening not in table.read_text():
            assert time.monotonic() < end, table.read_text()
            time.sleep(0.02)
        agents.processes[0].send_signal(signal.SIGTERM)
        assert agents.codes() == [75]
        assert agents.lines(0) == [
            "pfc launch: SIGTERM before the workers started: nothing is lost, run the same command again"
        ]


def test_the_run_ends_with_the_weights_of_one_host(the_run: Run, faces: Path, tmp_path: Path) -> None:
    with the_run.started() as agents:
        for process in agents.processes:
            process.wait(timeout=200)
        assert agents.codes() == [0, 0], [path.read_text() for path in agents.printed]
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces, steps=STEPS, batch_size=8)
    one_host = run(launch(2, "train", config, "--set", "checkpoint.every_steps=10"), cwd=tmp_path)
    assert one_host.code == 0, one_host.err
    last = f"checkpoints/step_{STEPS:08d}"
    assert_identical(everything(the_run.output / last), everything(tmp_path / "out" / last))
