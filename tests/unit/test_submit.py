"""What a submission is made of: names, options, the registry, processes and files told apart."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.submit.environment import for_a_launcher, state_folder, variables_like
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Resources, Toleration, Volume
from deploy.submit.local import LocalTarget
from deploy.submit.local_state import LocalState
from deploy.submit.names import LONGEST, check_name, made_valid
from deploy.submit.options import (
    add_options,
    parse_environment,
    parse_pairs,
    parse_secrets,
    parse_toleration,
    parse_volume,
)
from deploy.submit.output_files import read_lines
from deploy.submit.own_options import options_of, target_of
from deploy.submit.processes import ProcessMark
from deploy.submit.registry import Entry, Registry
from deploy.submit.run_check import says_address

pytestmark = pytest.mark.unit

ENTRY = Entry("one", "local", {"max_restarts": 5}, "2026-01-01T00:00:00+00:00", "/run.toml", "/runs/one", 2, 1)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ms1mv2_r50", "ms1mv2-r50"),
        ("My Run (2)", "my-run-2"),
        ("2026", "run-2026"),
        ("ÄÖ", "run"),
        ("---", "run"),
        ("x" * 39 + "_y", "x" * 39),
    ],
)
def test_names_made_of_folders(text: str, name: str) -> None:
    assert made_valid(text) == name
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "Run", "1run", "run-", "-run", "a.b", "a/b", "ünder", "x" * (LONGEST + 1), "a\n"])
def test_names_refused(name: str) -> None:
    with pytest.raises(SubmitError, match="lower-case letters") as error:
        check_name(name)
    assert check_name(made_valid(name)) in str(error.value)


def test_volumes_and_tolerations() -> None:
    assert parse_volume("/mnt/faces:/data") == Volume("/mnt/faces", "/data")
    assert parse_volume("claim:/data:ro") == Volume("claim", "/data", read_only=True)
    assert parse_toleration("gpu") == Toleration("gpu")
    assert parse_toleration("gpu=a=b:NoSchedule") == Toleration("gpu", "a=b", "NoSchedule")
    assert parse_toleration("gpu=") == Toleration("gpu", "")
    assert parse_pairs("--env", ["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    assert parse_secrets(["WANDB_API_KEY=wandb/key"]) == {"WANDB_API_KEY": "wandb/key"}


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (lambda: parse_volume("/data"), "SRC:DST"),
        (lambda: parse_volume("/a:/b:rx"), "SRC:DST"),
        (lambda: parse_volume(":/b"), "SRC:DST"),
        (lambda: parse_volume("/a:b"), "absolute"),
        (lambda: parse_toleration("gpu:Sometimes"), "NoExecute"),
        (lambda: parse_toleration("=1"), "key=value"),
        (lambda: parse_pairs("--node-selector", ["zone"]), "--node-selector zone: write NAME=VALUE"),
        (lambda: parse_pairs("--env", ["A=1", "A=2"]), "twice"),
        (lambda: parse_environment(["MY-VAR=1"]), "not a variable's name"),
        (lambda: parse_environment(["WANDB_API_KEY=hush"]), "--secret WANDB_API_KEY=SECRET/KEY"),
        (lambda: parse_environment(["db_password=hush"]), "looks like a secret"),
        (lambda: parse_secrets(["TOKEN=hush"]), "names where the value is kept"),
        (lambda: parse_secrets(["TOKEN=a/b/hush"]), "names where the value is kept"),
        (lambda: variables_like(["MY_*"], {"MY_TOKEN": "hush"}), "--pass-env MY_TOKEN looks like a secret"),
    ],
)
def test_options_refused_without_repeating_secrets(parse: Callable[[], object], message: str) -> None:
    with pytest.raises(SubmitError) as error:
        parse()
    assert message in str(error.value)
    assert "hush" not in str(error.value)


def test_variables_of_the_shell() -> None:
    shell = {"NCCL_DEBUG": "INFO", "NCCL_IB_HCA": "mlx5", "GLOO_SOCKET_IFNAME": "lo", "RANK": "3", "PET_NNODES": "2"}
    assert variables_like(["NCCL_*"], shell) == {"NCCL_DEBUG": "INFO", "NCCL_IB_HCA": "mlx5"}
    assert variables_like(["nothing*"], shell) == {}
    launcher = for_a_launcher({"A": "1"}, environment=shell)
    assert launcher.keys() == {"NCCL_DEBUG", "NCCL_IB_HCA", "GLOO_SOCKET_IFNAME", "A"}
    assert state_folder({"PFC_STATE_DIR": "/x"}) == Path("/x")
    assert state_folder({}) == Path.home() / ".local/state/pfc/jobs"


def test_help_of_all_options_can_be_shown() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert "--time-limit SECONDS" in parser.format_help()


def test_the_registry(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "jobs")
    assert registry.entries() == []
    with pytest.raises(SubmitError, match=r"no run called 'one'.*none yet"):
        registry.get("one")
    registry.write(ENTRY)
    registry.write(replace(ENTRY, name="before", submitted="2025-01-01T00:00:00+00:00"))
    assert [entry.name for entry in registry.entries()] == ["before", "one"]
    assert registry.get("one") == ENTRY
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == ["before.json", "one.json"]
    assert (tmp_path / "jobs").stat().st_mode & 0o077 == 0, "nobody else's business"
    (tmp_path / "jobs" / "one.json").write_text('{"name": "one"}')
    with pytest.raises(SubmitError, match=r"one.json: cannot be read .* remove it"):
        registry.get("one")


def test_two_submissions_wait_for_each_other(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    other = "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", other, str(tmp_path / ".lock")]
    with registry.locked():
        assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode != 0
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


def test_a_target_is_made_again_with_its_options(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    LocalTarget.add_arguments(parser)
    options = options_of(LocalTarget, parser.parse_args(["--max-restarts", "5"]))
    assert json.loads(json.dumps(options)) == {"max_restarts": 5}
    again = target_of(ENTRY)
    assert isinstance(again, LocalTarget)
    assert again._max_restarts == 5
    assert isinstance(target_of(replace(ENTRY, options={})), LocalTarget), "of an older version without the option"


JOB = Job("one", Path("/run.toml"), "[metrics]\nport = 9500\n", Path("/runs/one"), metrics_port=9500)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (replace(JOB, image="pfc:1"), "--image"),
        (replace(JOB, queue="gpu"), "--queue"),
        (replace(JOB, resources=Resources(memory="1Gi")), "--memory"),
        (replace(JOB, volumes=(Volume("/a", "/b"),)), "--volume"),
        (replace(JOB, secrets={"A": "b/c"}), "exported variables reach the run"),
        (replace(JOB, nodes=2, gpus=True), "the same GPUs"),
        (replace(JOB, nodes=2), "metrics.port_in_use=next"),
    ],
)
def test_what_one_machine_cannot_carry(job: Job, message: str) -> None:
    with pytest.raises(SubmitError) as error:
        LocalTarget(3).check(job)
    assert message in str(error.value)


def test_what_one_machine_can_carry() -> None:
    LocalTarget(0).check(JOB)
    LocalTarget(0).check(replace(JOB, nodes=2, config_text='[metrics]\nport = 9500\nport_in_use = "next"\n'))
    with pytest.raises(SubmitError, match="--max-restarts -1"):
        LocalTarget(-1)


def test_processes_are_told_from_later_ones_of_the_same_id() -> None:
    own = ProcessMark.of(os.getpid())
    assert own is not None
    assert own.is_alive
    assert not replace(own, started=own.started + 1).is_alive
    assert not replace(own, boot="another").is_alive
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = ProcessMark.of(child.pid)
    child.communicate(b"\n", timeout=30)
    assert mark is not None
    assert not mark.is_alive
    assert ProcessMark.of(child.pid) is None


def test_a_local_run_s_state(tmp_path: Path) -> None:
    assert LocalState.read(tmp_path) is None
    state = LocalState(ProcessMark(1, 2, "boot"), "failed", "node 0 exited with 1", 3, 1, 1, (1, 1), (70, 71))
    state.write(tmp_path)
    assert replace(state, codes=[1, 1], agents=[70, 71]) == LocalState.read(tmp_path)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(SubmitError, match=r"state.json: cannot be read"):
        LocalState.read(tmp_path)


def test_lines_of_files_that_are_being_written(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"one\ntwo\r\nold\rnew\nthr")
    polls = 0

    def is_live() -> bool:
        nonlocal polls
        polls += 1
        if polls == 2:
            with first.open("ab") as file:
                file.write(b"ee\n")
            second.write_bytes(b"\xff\nend")
        return polls < 3

    lines = list(read_lines(lambda: {first: "1: ", second: "2: "}, follow=True, is_live=is_live))
    assert lines == ["1: one", "1: two", "1: new", "1: three", "2: �", "2: end"]
    assert list(read_lines(lambda: {tmp_path / "absent": ""})) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("[metrics]\nport = 1\n", False),
        ('[metrics]\naddress = "10.0.0.1"\n', True),
        ("metrics = 1\n", True),
        ("[metrics\n", True),
    ],
)
def test_whether_a_file_has_an_address_of_its_own(tmp_path: Path, text: str, expected: bool) -> None:
    """What is no configuration at all is left to the trainer, which says what is wrong with it."""
    (tmp_path / "run.toml").write_text(text)
    assert says_address(tmp_path / "run.toml") is expected
    assert says_address(tmp_path / "absent.toml") is True
