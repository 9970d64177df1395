"""A job as Docker's own commands: a network, and on it one container for each node."""

import csv
import io
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from deploy.submit.docker_folders import config_file, output_folder, user_of, volumes_of
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job
from deploy.submit.quantity import bytes_of, cpus_of

MASTER_PORT = 29500
CONFIG = "/etc/pfc/run.toml"
TRAIN = ("-m", "deploy.launch.agent", "-m", "trainer", "train", CONFIG)
SHM = "1Gi"  # NCCL's and the data loader's; Docker's own 64 MiB are too few for eight ranks
KILL_SECONDS = 30  # of the grace time, kept for the launcher to end what has not ended

Command = list[tuple[str, ...]]  # words that stand on one line together


@dataclass(frozen=True)
class DockerOptions:
    """What only this target has. user: ``UID:GID``, None: as :func:`user_of`. restarts: of the ranks, on one node.

    publish_metrics: rank r of the run is served on port ``metrics_port`` + r of this machine's loopback.
    """

    user: str | None = None
    restarts: int = 0
    publish_metrics: bool = False


def user(job: Job, options: DockerOptions) -> str:
    """``UID:GID`` of the containers' processes."""
    return options.user or user_of(output_folder(job))


def make_network(job: Job) -> Command:
    """Containers find each other by name on a network of their own alone."""
    return [("docker", "network", "create"), ("--label", f"pfc.name={job.name}"), (job.name,)]


def start_nodes(job: Job, options: DockerOptions) -> list[Command]:
    """One command for each node, in their order: the first one's name must be known when the others look for it."""
    return [_start_node(job, options, node) for node in range(job.nodes)]


def look_inside(job: Job, options: DockerOptions, *python: str) -> Command:
    """Python with these words in a container of the image, as the run's own see this machine, but for its network."""
    assert job.image is not None, "it is checked"
    return [
        ("docker", "run", "--rm", "--pull", "never", "--network", "none"),
        ("--user", user(job, options), "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        ("--read-only", "--tmpfs", "/tmp:exec,mode=1777"),
        *_mounts(job),
        ("--entrypoint", "python", job.image, *python),
    ]


def script(job: Job, options: DockerOptions) -> str:
    """All of it for ``sh``: makes the folder, writes the configuration, starts the nodes."""
    folder = output_folder(job)
    lines = ["#!/bin/sh", f"# pfc run {job.name}: {job.nodes} nodes of {job.ranks_per_node} ranks", "set -eu"]
    if not folder.exists():
        lines.append(f"mkdir -p {shlex.quote(str(folder))}")
        lines.append(f'[ "$(id -u)" != 0 ] || chown {user(job, options)} {shlex.quote(str(folder))}')
    end = _end_mark(job.config_text)
    lines.append(f"cat > {shlex.quote(str(config_file(job)))} << '{end}'")
    lines.extend([*job.config_text.splitlines(), end])
    lines.extend(_shown(command) for command in (make_network(job), *start_nodes(job, options)))
    return "\n".join(lines) + "\n"


def words(command: Command) -> list[str]:
    """As a process takes them."""
    return [word for line in command for word in line]


def _start_node(job: Job, options: DockerOptions, node: int) -> Command:
    name = f"{job.name}-{node}"
    return [
        ("docker", "run", "--detach", "--init", "--pull", "never"),
        ("--name", name, "--hostname", name, "--network", job.name),
        ("--label", f"pfc.name={job.name}", "--label", f"pfc.node={node}"),
        ("--label", f"pfc.nodes={job.nodes}", "--label", f"pfc.ranks-per-node={job.ranks_per_node}"),
        # A restart by Docker is of one container, whatever its exit code: see docker/README.md.
        ("--restart", "no", "--stop-signal", "SIGTERM", "--stop-timeout", str(job.grace_seconds)),
        ("--user", user(job, options), "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        ("--read-only", "--tmpfs", "/tmp:exec,mode=1777"),
        *_resources(job, node),
        *_mounts(job),
        *_environment(job, options, node),
        *_ports(job, options, node),
        *_process(job),
    ]


def _resources(job: Job, node: int) -> Iterator[tuple[str, ...]]:
    asked = job.resources
    yield "--shm-size", str(bytes_of(asked.shm or SHM, "shm"))
    if asked.cpus is not None:
        yield "--cpus", f"{cpus_of(asked.cpus, 'cpus'):g}"
    if asked.memory is not None:
        yield "--memory", str(bytes_of(asked.memory, "memory"))
    if job.gpus:
        first = node * job.ranks_per_node
        devices = ",".join(map(str, range(first, first + job.ranks_per_node)))
        yield "--gpus", f'"device={devices}"', "--ulimit", "memlock=-1"


def _mounts(job: Job) -> Iterator[tuple[str, ...]]:
    for volume in volumes_of(job):
        yield "--mount", _mount(volume.source, volume.target, read_only=volume.read_only)
    yield "--mount", _mount(str(config_file(job)), CONFIG, read_only=True)


def _mount(source: str, target: str, *, read_only: bool) -> str:
    """Docker reads it as a line of CSV; ``--volume`` would make a folder of root's where ``source`` is missing."""
    line = io.StringIO()
    fields = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if read_only else [])]
    csv.writer(line, lineterminator="").writerow(fields)
    return line.getvalue()


def _environment(job: Job, options: DockerOptions, node: int) -> Iterator[tuple[str, ...]]:
    place: dict[str, object] = {
        "PET_NNODES": job.nodes,
        "PET_NODE_RANK": node,
        "PET_NPROC_PER_NODE": job.ranks_per_node,
        "PET_MASTER_ADDR": f"{job.name}-0",
        "PET_MASTER_PORT": MASTER_PORT,
        "PET_MAX_RESTARTS": options.restarts,
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": max(job.grace_seconds - KILL_SECONDS, 1),
    }
    for key, value in {**job.environment, **job.passed_through, **place}.items():
        yield "--env", f"{key}={value}"
    for variable in job.secrets:  # by name: Docker takes the value from the shell that submits
        yield "--env", variable


def _ports(job: Job, options: DockerOptions, node: int) -> Iterator[tuple[str, ...]]:
    if options.publish_metrics and job.metrics_port is not None:
        for rank in range(job.ranks_per_node):
            here = job.metrics_port + node * job.ranks_per_node + rank
            yield "--publish", f"127.0.0.1:{here}:{job.metrics_port + rank}"


def _process(job: Job) -> Iterator[tuple[str, ...]]:
    if job.image is None:
        raise SubmitError("docker: no image; build one (docker/README.md) and name it with --image")
    if job.deadline_seconds is None:
        yield "--entrypoint", "python", job.image
        yield TRAIN
    else:  # which asks the launcher to stop, as docker stop does, and returns its exit code
        yield "--entrypoint", "timeout", job.image
        yield "--foreground", "--preserve-status", "--kill-after", str(job.grace_seconds), str(job.deadline_seconds)
        yield ("python", *TRAIN)


def _shown(command: Command) -> str:
    return " \\\n    ".join(shlex.join(line) for line in command)


def _end_mark(text: str) -> str:
    """A line that ``text`` does not have."""
    mark = "END_OF_RUN_TOML"
    while mark in text.splitlines():
        mark += "_"
    return mark
