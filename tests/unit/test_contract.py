"""deploy/CONTRACT.md: every target starts a node's part of a run by the same command, variables and grace time."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from commands import ROOT

from deploy.submit.docker import DockerTarget
from deploy.submit.docker_commands import CONFIG as CONFIG_IN_CONTAINERS
from deploy.submit.job import Job, Volume
from deploy.submit.k8s import contract
from deploy.submit.k8s.options import KINDS, Options
from deploy.submit.k8s.pod import port_name
from deploy.submit.kubernetes import KubernetesTarget
from deploy.submit.local import LocalTarget
from deploy.submit.names import LONGEST
from deploy.submit.options import DEFAULT_GRACE_SECONDS
from deploy.submit.slurm import SlurmTarget
from deploy.submit.slurm_script import SlurmOptions
from deploy.submit.target import Target

pytestmark = pytest.mark.unit

TEXT = (ROOT / "deploy" / "CONTRACT.md").read_text(encoding="utf-8")
PLACE = ("PET_NNODES", "PET_NODE_RANK", "PET_NPROC_PER_NODE", "PET_MASTER_ADDR", "PET_MASTER_PORT", "PET_MAX_RESTARTS")
SHOWN_BY_TRAINER = ("trainjob",)  # which Kubeflow Trainer gives its place


def targets() -> list[tuple[str, Target]]:
    pods = [(kind, KubernetesTarget(Options(kind=kind))) for kind in KINDS]
    return [
        ("local", LocalTarget(3)),
        ("docker", DockerTarget()),
        ("slurm", SlurmTarget(SlurmOptions(3, None, ()))),
        *pods,
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PFC_STATE_DIR", str(tmp_path / "state"))
    (tmp_path / "runs").mkdir()
    return tmp_path


def job_for(name: str, folder: Path) -> Job:
    """The same run, with what only containers need."""
    config = f'[run]\noutput = "{folder}/runs/one"\n'
    job = Job("one", Path("run.toml"), config, folder / "runs" / "one", nodes=2, ranks_per_node=3, grace_seconds=100)
    if name in KINDS:
        claim = Volume("runs", "/runs")
        return replace(job, image="pfc:1", volumes=(claim,), output=Path("/runs/one"))
    return replace(job, image="pfc:1") if name == "docker" else job


@pytest.mark.parametrize("name", [name for name, _ in targets()])
def test_one_command_and_one_environment(name: str, folder: Path) -> None:
    target = dict(targets())[name]
    job = job_for(name, folder)
    target.check(job)
    shown = target.render(job)
    words = re.sub(r"[\s\\'\"-]+", " ", shown)
    assert "m deploy.launch.agent m trainer train " in words
    place = set(re.findall(r"PET_\w+", shown))
    assert place == (set() if name in SHOWN_BY_TRAINER else set(PLACE))
    assert re.search(r"TORCH_ELASTIC_SHUTDOWN_TIMEOUT(=|\s+value: ')70\b", shown), "30 s less than the grace time"


def test_what_it_says_is_what_is_there() -> None:
    assert f"`{CONFIG_IN_CONTAINERS}`" in TEXT
    assert f"`{contract.CONFIG_FOLDER}/{contract.CONFIG_KEY}`" in TEXT
    assert f"(uid {contract.USER_ID})" in TEXT
    assert f"({contract.MASTER_PORT} in containers)" in TEXT
    assert f"Grace time: {DEFAULT_GRACE_SECONDS} s unless asked for otherwise" in TEXT
    assert f"`{port_name(0)}`, `{port_name(1)}`, ..." in TEXT
    for label in contract.labels("NAME").items():
        assert "`{}: {}`".format(*label) in TEXT
    assert f"at most {LONGEST} characters" in TEXT
    for code in (0, 1, contract.BAD_INPUT, contract.STOPPED):
        assert re.search(rf"\b{code} ", TEXT)
