"""The launcher's decisions: exit codes, arguments, the interface towards the other nodes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment
from ports import free_port
from torch._C._distributed_c10d import PrefixStore, TCPStore

from deploy.launch import exit_codes
from deploy.launch.agent import main
from deploy.launch.exit_codes import described, merged
from deploy.launch.last_words import KEY, PREFIX, tell_other_nodes
from deploy.launch.meeting import with_limit
from deploy.launch.network import interface_towards
from trainer.bulletin import FAILURE, Bulletin
from trainer.errors import ExitCode
from trainer.failure import Failure

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("codes", "asked", "expected"),
    [
        ({}, False, 0),
        ({}, True, 0),  # asked in its last step: the run is complete
        ({0: 1, 1: 2}, False, 2),
        ({0: 75, 1: 2}, True, 2),
        ({0: -9, 1: 2}, False, 2),
        ({0: 75, 1: 75}, False, 75),
        ({0: 75, 1: -15}, False, 75),  # on its way out when torchrun closed the group
        ({0: 75, 1: 1}, True, 75),
        ({0: 75, 1: 1}, False, 1),  # a crash at the start, and torchrun's signal to the other rank
        ({0: 75, 1: -9}, False, 1),
        ({0: -15, 1: -15}, True, 75),  # still importing: nothing is lost
        ({0: -15, 1: -15}, False, 1),
        ({0: -2}, True, 75),
        ({0: 1, 1: -15}, True, 1),
        ({0: -9, 1: -9}, True, 1),  # the checkpoint did not fit into the grace time
        ({1: 1}, False, 1),
        ({1: -11}, False, 1),
    ],
)
def test_exit_code_of_a_node(codes: dict[int, int], asked: bool, expected: int) -> None:
    assert merged(codes, asked=asked) == expected


def test_the_trainers_exit_codes_and_names_are_these() -> None:
    ours = (exit_codes.DONE, exit_codes.FAILURE, exit_codes.BAD_INPUT, exit_codes.STOPPED)
    assert ours == tuple(ExitCode)
    assert KEY == FAILURE
    assert PREFIX == "attempt_0"


def test_a_nodes_last_words_reach_the_ranks_of_the_others() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    bulletin = Bulletin(PrefixStore(PREFIX, store), rank=0, world_size=4)
    assert bulletin.failure() is None
    master = ("127.0.0.1", store.port)
    tell_other_nodes("node 1 failed: rank 2 was ended by SIGKILL", 1, master=master, absent=2)
    first = Failure("node 1 failed: rank 2 was ended by SIGKILL", ExitCode.FAILURE, absent=2)
    assert bulletin.failure() == first
    tell_other_nodes("node 0 failed, later", 2, master=master, absent=2)
    assert bulletin.failure() == bulletin.tell(Failure("even later")) == first
    assert not bulletin.all_have_heard(first)
    bulletin.acknowledge()
    bulletin.acknowledge()
    assert bulletin.all_have_heard(first)


def test_description_of_what_happened() -> None:
    assert described({1: -9, 0: 1}) == "rank 0 exited with 1, rank 1 was ended by SIGKILL"
    assert described(dict.fromkeys(range(9), 1)).endswith("rank 3 exited with 1, 5 more")
    assert described({0: -99}) == "rank 0 was ended by signal 99"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nnodes", "1:2"], "--nnodes 1:2: give one number"),
        (["--nnodes", "many"], "--nnodes many: give a number"),
        (["--nproc-per-node", "some"], "Unsupported nproc_per_node value: some"),
        (["--max-restarts", "-1"], "--max-restarts -1: give 0 or more"),
        (["--nnodes", "2"], "several nodes need the address of the first: --master-addr, or PET_MASTER_ADDR"),
        (["--nnodes", "2", "--master-addr", "a", "--max-restarts", "1"], "--max-restarts must be 0 on several nodes"),
        (["--nnodes", "2", "--master-addr", "a", "--node-rank", "2"], "--node-rank 2 is not one of 2 nodes"),
        (["--nnodes", "2", "--master-addr", "a", "--standalone"], "leave out --standalone"),
        (["--nnodes", "2", "--rdzv-endpoint", "a:1"], "meet at --master-addr and --master-port"),
        (["--rdzv-conf", "timeout=soon"], "--rdzv-conf timeout=soon: give whole seconds"),
    ],
)
def test_arguments_that_cannot_work(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PET_MASTER_ADDR", raising=False)
    assert main([*arguments, "-m", "trainer", "train", "run.toml"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pfc launch: error: ")
    assert message in lines[0]


def test_a_node_alone_does_not_wait_for_ever(tmp_path: Path) -> None:
    """Whichever node it is: one line that says who is missing, and the code of what may be tried again."""
    launchers = []
    for node in range(2):  # each at a port where nobody comes
        place = ["--nnodes", "2", "--node-rank", str(node), "--nproc-per-node", "1"]
        master = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        command = [sys.executable, "-m", "deploy.launch.agent", *place, *master, "-m", "trainer", "train", "run.toml"]
        launchers.append(
            subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment() | {"PFC_MEETING_SECONDS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    told = [launcher.communicate(timeout=100)[1].splitlines() for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [1, 1]
    (first,), (second,) = told
    assert first.startswith("pfc launch: only 1 of 2 nodes came within 1 s: to wait longer set PFC_MEETING_SECONDS")
    assert second.startswith("pfc launch: the first node did not answer at 127.0.0.1:")


def test_the_limit_of_waiting_is_a_setting() -> None:
    assert with_limit("", None) == ("timeout=120", 120)
    assert with_limit("", "600") == ("timeout=600", 600)
    assert with_limit("read_timeout=7,timeout=30", "600") == ("read_timeout=7,timeout=30", 30)
    with pytest.raises(ValueError, match=r"PFC_MEETING_SECONDS=0: give whole seconds, 1 or more"):
        with_limit("", "0")


def test_the_environment_is_read_as_schedulers_set_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NNODES": "2", "NODE_RANK": "7", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29400"}.items():
        monkeypatch.setenv(f"PET_{name}", value)
    assert main(["-m", "trainer", "train", "run.toml"]) == 2
    assert "--node-rank 7 is not one of 2 nodes" in capsys.readouterr().err


def test_the_interface_towards_this_machine_is_the_loopback() -> None:
    assert interface_towards("127.0.0.1", 29500) == "lo"
    assert interface_towards("no.such.host.invalid", 29500) is None


def test_a_worker_becomes_the_module_or_script_it_is_given(tmp_path: Path) -> None:
    shown = "import sys; print(__name__, sys.argv, sys.path[0])"
    (tmp_path / "shown.py").write_text(shown)
    for words in (["-m", "shown"], [str(tmp_path / "shown.py")]):
        ran = subprocess.run(
            [sys.executable, "-m", "deploy.launch.worker", str(os.getpid()), *words, "--step", "3"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.stdout == f"__main__ {[str(tmp_path / 'shown.py'), '--step', '3']} {tmp_path}\n", ran.stderr


def test_a_worker_whose_launcher_is_gone_already_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text("print('ran')")
    command = [sys.executable, "-m", "deploy.launch.worker", "1", "-m", "shown"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
