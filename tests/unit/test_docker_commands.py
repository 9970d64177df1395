"""What the Docker target sends, as text; tests/system/test_docker.py sends it."""

import csv
import os
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from deploy.submit.docker import TARGET
from deploy.submit.docker_commands import DockerOptions, start_nodes, words
from deploy.submit.docker_engine import complaint
from deploy.submit.docker_nodes import Node, status_of
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Resources, Volume
from deploy.submit.quantity import bytes_of, cpus_of

pytestmark = pytest.mark.unit


@pytest.fixture
def job(tmp_path: Path) -> Job:
    for name in ("data", "runs"):
        (tmp_path / name).mkdir()
    if os.getuid() == 0:
        os.chown(tmp_path / "runs", 4711, 4712)
    return Job(
        name="faces",
        config=tmp_path / "run.toml",
        config_text='[run]\noutput = "/runs/out"\n[data]\nrecords = "/data/faces"\n',
        output=Path("/runs/out"),
        nodes=2,
        ranks_per_node=4,
        image="pfc:1",
        volumes=(Volume(str(tmp_path / "data"), "/data", read_only=True), Volume(str(tmp_path / "runs"), "/runs")),
        grace_seconds=300,
    )


def options_of(job: Job, node: int, options: DockerOptions | None = None) -> list[tuple[str, str]]:
    """Each flag of a node's ``docker run`` with the word after it."""
    given = words(start_nodes(job, options or DockerOptions())[node])
    return list(pairwise(given))


def test_a_node_knows_its_place(job: Job) -> None:
    for node in (0, 1):
        environment = {value for flag, value in options_of(job, node) if flag == "--env"}
        assert environment == {
            "PET_NNODES=2",
            f"PET_NODE_RANK={node}",
            "PET_NPROC_PER_NODE=4",
            "PET_MASTER_ADDR=faces-0",
            "PET_MASTER_PORT=29500",
            "PET_MAX_RESTARTS=0",
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT=270",
        }
        assert {("--name", f"faces-{node}"), ("--hostname", f"faces-{node}"), ("--network", "faces")} <= set(
            options_of(job, node)
        )


def test_the_last_words_are_the_contracts_command(job: Job) -> None:
    command = words(start_nodes(job, DockerOptions())[0])
    start = command.index("--entrypoint")
    assert " ".join(command[start:]) == (
        "--entrypoint python pfc:1 -m deploy.launch.agent -m trainer train /etc/pfc/run.toml"
    )


def test_amounts_secrets_and_gpus(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "not to be seen")
    rich = replace(
        job,
        gpus=True,
        resources=Resources(cpus="500m", memory="32Gi", shm="1G"),
        passed_through={"NCCL_DEBUG": "INFO"},
        secrets={"WANDB_API_KEY": "wandb/key"},
    )
    given = set(options_of(rich, 1))
    assert {
        ("--gpus", '"device=4,5,6,7"'),
        ("--cpus", "0.5"),
        ("--memory", str(32 * 2**30)),
        ("--shm-size", "1000000000"),
        ("--env", "NCCL_DEBUG=INFO"),
        ("--env", "WANDB_API_KEY"),
        ("--stop-timeout", "300"),
    } <= given
    assert "not to be seen" not in TARGET().render(rich)
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(SubmitError, match=r"^secret WANDB_API_KEY \(wandb/key\): Docker keeps none; export"):
        TARGET().check(rich)


def test_metrics_of_all_ranks_have_ports_of_their_own_here(job: Job) -> None:
    job = replace(job, metrics_port=9500)
    public = DockerOptions(publish_metrics=True)
    published = [value for node in (0, 1) for flag, value in options_of(job, node, public) if flag == "--publish"]
    assert published == [f"127.0.0.1:{9500 + rank}:{9500 + rank % 4}" for rank in range(8)]
    with pytest.raises(SubmitError, match=r"container's own loopback; set metrics.address = '0.0.0.0'$"):
        TARGET(public).check(job)


def test_a_folder_with_a_comma_is_mounted_as_it_is(job: Job, tmp_path: Path) -> None:
    odd = tmp_path / 'a,b "c"'
    odd.mkdir()
    job = replace(job, volumes=(*job.volumes, Volume(str(odd), "/odd")))
    mounts = [next(csv.reader([value])) for flag, value in options_of(job, 0) if flag == "--mount"]
    assert ["type=bind", f"source={odd}", "target=/odd"] in mounts


def test_the_runs_folder_is_mounted_at_its_own_path_where_no_volume_holds_it(job: Job, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    text = f'[run]\noutput = "{alone}"\n'
    mounts = [
        value
        for flag, value in options_of(replace(job, output=alone, config_text=text, volumes=()), 0)
        if flag == "--mount"
    ]
    assert mounts == [
        f"type=bind,source={alone},target={alone}",
        f"type=bind,source={alone}.submitted.toml,target=/etc/pfc/run.toml,readonly",
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a folder to somebody else")
def test_root_submits_as_whoever_owns_the_folder(job: Job, tmp_path: Path) -> None:
    assert ("--user", "4711:4712") in options_of(job, 0)
    os.chown(tmp_path / "runs", 0, 0)
    assert ("--user", "10001:10001") in options_of(job, 0)
    (tmp_path / "runs" / "out").mkdir(mode=0o755)
    with pytest.raises(SubmitError, match=r"user 10001:10001 of the containers may not write there; chown -R 10001"):
        TARGET().check(job)


def test_the_script_carries_the_configuration_through_the_shell(job: Job, tmp_path: Path) -> None:
    text = job.config_text + "# $HOME `id` 'x' \"y\"\n[metrics]\nnote = '''\nEND_OF_RUN_TOML\n'''\n"
    script = TARGET().render(replace(job, config_text=text))
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").write_text('#!/bin/sh\necho "$@" >> "$0.log"\n')
    (programs / "docker").chmod(0o755)
    path = {"PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["sh"], input=script, text=True, env=path, check=True, timeout=60)
    assert (tmp_path / "runs/out.submitted.toml").read_text() == text
    sent = (programs / "docker.log").read_text().splitlines()
    assert sent[0] == "network create --label pfc.name=faces faces"
    assert sent[1:] == [" ".join(words(command)[1:]) for command in start_nodes(job, DockerOptions())]


@pytest.mark.parametrize(
    ("changed", "complaint_text"),
    [
        ({"image": None}, r"^docker: no image; build one"),
        ({"queue": "gpu"}, r"^docker: one engine has no queue"),
        ({"resources": Resources(memory="32GB")}, r"^memory 32GB: no amount of memory; write it as 32Gi"),
        ({"resources": Resources(cpus="0")}, r"^cpus 0: no number of processors"),
        ({"volumes": (Volume("claim", "/runs"),)}, r"^volume claim:/runs: give the absolute paths"),
        ({"volumes": (Volume("/no/where", "/runs"),)}, r"^volume /no/where: there is no such folder"),
        ({"volumes": (Volume("/", "/runs"), Volume("/", "/runs"))}, r"^volume /runs: two folders"),
        ({"volumes": (Volume("/", "/runs", read_only=True),)}, r"^run.output /runs/out: volume /runs is read-only"),
        ({"volumes": (Volume("/tmp", "/runs"),)}, r"^data.records /data/faces: in none of the folders .* \(/runs\)"),
    ],
)  # fmt: skip
def test_what_it_cannot_carry_is_refused_in_one_line(job: Job, changed: dict[str, object], complaint_text: str) -> None:
    with pytest.raises(SubmitError, match=complaint_text) as raised:
        TARGET().check(replace(job, **changed))
    assert raised.value.code == 2
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "complaint_text"),
    [
        (DockerOptions(user="me"), r"^--user me: give two numbers"),
        (DockerOptions(restarts=-1), r"^--max-restarts -1: give 0 or more"),
        (DockerOptions(restarts=1), r"^--max-restarts is for one node"),
    ],
)
def test_options_that_do_not_fit(job: Job, options: DockerOptions, complaint_text: str) -> None:
    with pytest.raises(SubmitError, match=complaint_text):
        TARGET(options).check(job)


def test_an_engine_elsewhere_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@there")
    with pytest.raises(SubmitError, match=r"^DOCKER_HOST=ssh://me@there is another machine"):
        TARGET().check(job)


def node(number: int, state: str, code: int = 0, *, out_of_memory: bool = False, health: str = "") -> Node:
    return Node(f"faces-{number}", number, 2, 4, state, code, out_of_memory, health, 600)


@pytest.mark.parametrize(
    ("nodes", "state", "code", "detail"),
    [
        ([], "unknown", None, "no containers of that name"),
        ([node(0, "created"), node(1, "created")], "waiting", None, "0 of 2 nodes run"),
        ([node(0, "running"), node(1, "running", health="unhealthy")], "running", None, "node 1 is unhealthy"),
        ([node(0, "running"), node(1, "exited", 137)], "running", None, "1 of 2 nodes run, node 1 was k"),
        ([node(0, "exited"), node(1, "exited")], "done", 0, "all 2 nodes ended with 0"),
        ([node(0, "exited", 75), node(1, "exited", 75)], "stopped", 75, "a checkpoint is written"),
        ([node(0, "exited", 75), node(1, "exited", 143)], "stopped", 75, "a checkpoint is written"),
        ([node(0, "exited", 1), node(1, "exited", 2)], "bad input", 2, "node 0 ended with 1, node 1 ended with 2"),
        ([node(0, "exited", 1), node(1, "exited", 137, out_of_memory=True)], "failed", 1, "(out of memory)"),
        ([node(0, "exited")], "unknown", None, "1 of 2 containers are gone"),
    ],
)  # fmt: skip
def test_what_the_containers_say_of_the_run(nodes: list[Node], state: str, code: int | None, detail: str) -> None:
    status = status_of(nodes)
    assert (status.state, status.exit_code) == (state, code)
    assert detail in status.detail


def test_amounts() -> None:
    assert [bytes_of(text, "x") for text in ("5", "1.5Ki", "2k", "3Mi", "1Gi")] == [5, 1536, 2000, 3 << 20, 1 << 30]
    assert [cpus_of(text, "x") for text in ("8", "1.5", "250m")] == [8, 1.5, 0.25]


def test_words_of_other_versions_are_understood() -> None:
    """Docker 29 says some things differently from the program of the system test, 20.10 some from 28."""
    missing = "bind source path does not exist: /no/folder"
    for printed in (f"{missing}\n\nRun 'docker run --help' for more\n", f"{missing}.\nSee 'docker run --help'.\n"):
        assert str(complaint("run", printed)).startswith("mount /no/folder: there is no such file or folder")
    stopped = "failed to connect to the docker API at unix:///var/run/docker.sock; check if the path is correct and if "
    assert str(complaint("ps", stopped)).startswith("no Docker engine answers at unix:///var/run/docker.sock: start it")
    refused = "permission denied while trying to connect to the docker API at unix:///var/run/docker.sock"
    assert str(complaint("ps", refused)).startswith("no permission to use Docker's socket unix:///var/run/docker.sock:")
    other = complaint("run", "docker: Error response from daemon: something new.\n\nRun 'docker run --help' for more\n")
    assert (str(other), other.code) == ("docker run: something new.", 1)
