"""The scripts for machines without a scheduler: linted, and run as they are."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import ssh_server
from commands import ROOT, kill_marked, marked, ranks_of, run, running
from ports import free_port
from rank_log import RankLog
from small_faces import make_small_faces, write_run

pytestmark = pytest.mark.system

SCRIPTS = ROOT / "deploy" / "launch"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small_faces(tmp_path_factory.mktemp("faces") / "small")


def wait_until(condition: Callable[[], bool], told: Callable[[], str], *, deadline_seconds: float = 120.0) -> None:
    end = time.monotonic() + deadline_seconds
    while not condition():
        assert time.monotonic() < end, told()
        time.sleep(0.05)


def script(name: str, *arguments: object, **settings: object) -> list[str]:
    variables = [f"{key}={value}" for key, value in ({"PYTHON": sys.executable} | settings).items()]
    return ["env", *variables, str(SCRIPTS / name), *map(str, arguments)]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck (package shellcheck)")
def test_scripts_are_clean() -> None:
    scripts = sorted(SCRIPTS.glob("*.sh"))
    assert len(scripts) == 3
    done = subprocess.run(
        ["shellcheck", "--severity=style", *scripts], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout
    assert all(os.access(path, os.X_OK) for path in scripts)


@pytest.mark.parametrize("name", ["torchrun_static.sh", "torchrun_elastic.sh", "over_hosts.sh"])
def test_without_arguments_they_say_what_they_want(name: str, tmp_path: Path) -> None:
    finished = run(script(name), cwd=tmp_path)
    assert finished.code == 2
    assert finished.err.startswith("usage: ")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("torchrun_static.sh", ("absent.toml", 2, 1, 0, "127.0.0.1")),
        ("torchrun_elastic.sh", ("absent.toml", 16, 1, "1:2", "127.0.0.1:29500")),
        ("over_hosts.sh", ("absent.hosts", "absent.toml")),
    ],
)
def test_a_file_that_is_not_there_is_told_before_nodes_wait_for_each_other(
    name: str, arguments: tuple[object, ...], tmp_path: Path
) -> None:
    finished = run(script(name, *arguments), cwd=tmp_path, deadline_seconds=10)
    assert finished.code == 2
    assert f"{arguments[0]}: no such file here, or it cannot be read" in finished.err


def test_static_nodes(faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces, steps=8)
    port = free_port()
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                running(
                    script("torchrun_static.sh", config, 2, 1, node, "127.0.0.1", port),
                    cwd=tmp_path,
                    printed=tmp_path / f"{node}.txt",
                )
            )
            for node in (0, 1)
        ]
        assert [node.wait(timeout=200) for node in nodes] == [0, 0], (tmp_path / "0.txt").read_text()
    assert "2 ranks on cpu, global batch 16" in (tmp_path / "0.txt").read_text()


def test_elastic_nodes_take_whoever_comes(faces: Path, tmp_path: Path) -> None:
    """One node begins, is stopped, and two go on: with the same global batch."""
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces, steps=5000)
    words = ("torchrun_elastic.sh", config, 16, 1, "1:2", f"127.0.0.1:{free_port()}")
    log = RankLog(tmp_path / "out" / "logs" / "rank_0000.jsonl")
    for nodes in (1, 2):
        with ExitStack() as stack:
            printed = [tmp_path / f"{nodes}-{node}.txt" for node in range(nodes)]
            started = [
                stack.enter_context(running(script(*words, LAST_CALL=15 * nodes - 13), cwd=tmp_path, printed=path))
                for path in printed
            ]

            def told(printed: list[Path] = printed) -> str:
                return "\n".join(path.read_text() for path in printed)

            wait_until(lambda nodes=nodes: log.update().starts == nodes and log.step >= 4 * nodes, told)  # type: ignore[misc]
            started[0].send_signal(signal.SIGTERM)
            # torchrun has one code for all that is not 0.
            assert all(each.wait(timeout=120) != 0 for each in started), told()
            opening = f"{nodes} rank{'s' if nodes > 1 else ''} on cpu, global batch 16"
            assert opening in told()
            assert "checkpoint written" in told()


def test_a_batch_that_cannot_be_split(faces: Path, tmp_path: Path) -> None:
    config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
    finished = run(script("torchrun_elastic.sh", config, 15, 2, "1:1", f"127.0.0.1:{free_port()}"), cwd=tmp_path)
    assert finished.code == 1
    assert "a global batch of 15 cannot be split over 2 ranks" in finished.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(ssh_server.missing() != "", reason=ssh_server.missing())
class TestOverHosts:
    """A real sshd; both hosts are this machine."""

    def test_a_lost_rank_and_a_stop(self, faces: Path, tmp_path: Path) -> None:
        output, mark = tmp_path / "out", uuid.uuid4().hex
        config = write_run(tmp_path / "run.toml", output=output, faces=faces, steps=5000)
        (tmp_path / "hosts").write_text("# two of them\n127.0.0.1 slots=1\n\nlocalhost slots=1\n")
        log, printed = RankLog(output / "logs" / "rank_0000.jsonl"), tmp_path / "printed.txt"
        settings = {"PFC_TEST_COMMAND": mark, "OMP_NUM_THREADS": "1"}
        try:
            with ssh_server.ssh_server(tmp_path / "ssh", **settings) as ssh:
                command = script("over_hosts.sh", tmp_path / "hosts", config, SSH=ssh, PORT=free_port())
                with running(command, cwd=tmp_path, mark=mark, printed=printed) as process:
                    wait_until(lambda: log.update().step >= 6, printed.read_text)
                    os.kill(ranks_of(mark)[1], signal.SIGKILL)
                    wait_until(lambda: log.update().starts == 2 and log.step >= 8, printed.read_text)
                    assert "failure 1 of at most 3: starting all hosts again" in printed.read_text()
                    process.send_signal(signal.SIGTERM)
                    assert process.wait(timeout=120) == 75, printed.read_text()
                assert "stopped on request" in printed.read_text()
                wait_until(lambda: not marked(mark), lambda: f"{marked(mark)} live on")
        finally:
            kill_marked(mark)

    def test_a_host_that_cannot_be_reached(self, faces: Path, tmp_path: Path) -> None:
        config = write_run(tmp_path / "run.toml", output=tmp_path / "out", faces=faces)
        (tmp_path / "hosts").write_text("127.0.0.1\nunreachable\n")
        mark = uuid.uuid4().hex
        try:
            with ssh_server.ssh_server(tmp_path / "ssh", PFC_TEST_COMMAND=mark) as ssh:
                words = script("over_hosts.sh", tmp_path / "hosts", config, SSH=ssh, PORT=free_port(), MAX_RESTARTS=0)
                finished = run(words, cwd=tmp_path)
            assert finished.code == 1
            assert "port 9: Connection refused" in finished.err
        finally:
            kill_marked(mark)

    @pytest.mark.parametrize(
        ("hosts", "message"),
        [("# nobody\n", "names no host"), ("a slots=2\nb slots=3\n", "b has 3 ranks and a has 2")],
    )
    def test_a_host_file_that_cannot_be_used(self, hosts: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "hosts").write_text(hosts)
        (tmp_path / "run.toml").touch()
        finished = run(script("over_hosts.sh", tmp_path / "hosts", tmp_path / "run.toml"), cwd=tmp_path)
        assert finished.code == 2
        assert message in finished.err
