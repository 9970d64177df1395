"""A run on one machine's Docker engine: a container for each node, on a network of their own.

Docker restarts single containers, whatever their exit code was, and a run needs all its nodes and no restart after bad
input. So nothing is restarted here but ranks, by the launcher of a run on one node (``--max-restarts``): of several
nodes, ``status`` says what happened, and the same submission again starts all of them.
"""

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import suppress

from data_pipeline.pending_file import write_file
from deploy.submit.docker_commands import DockerOptions, make_network, script, start_nodes, user, words
from deploy.submit.docker_engine import docker, is_of_another_machine
from deploy.submit.docker_folders import check_folders, config_file, output_folder
from deploy.submit.docker_image import check_image, check_run
from deploy.submit.docker_logs import merged_lines
from deploy.submit.docker_nodes import Node, nodes_of, status_of
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job
from deploy.submit.sent_config import serves_itself_alone
from deploy.submit.target import Status, Target

_USER = re.compile(r"\d+:\d+")
STOP_SECONDS = 60.0  # for the engine, beyond the containers' own time


class DockerTarget:
    """Fulfils :class:`deploy.submit.target.Target`."""

    def __init__(self, options: DockerOptions | None = None) -> None:
        self._options = options or DockerOptions()

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options that this target alone has."""
        parser.add_argument("--user", metavar="UID:GID", help="of the containers; default: who owns run.output")
        parser.add_argument(
            "--max-restarts", type=int, default=0, metavar="N", help="of the ranks after a failure, on one node alone"
        )
        parser.add_argument(
            "--publish-metrics", action="store_true", help="rank r also at 127.0.0.1, port metrics.port + r"
        )

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "DockerTarget":
        """With these options."""
        return cls(DockerOptions(arguments.user, arguments.max_restarts, arguments.publish_metrics))

    def check(self, job: Job) -> None:
        """Refuse what this target cannot carry, before anything is sent."""
        self._check_options(job)
        for given, what in (
            (job.queue, "queue"),
            (job.node_selector, "node selector"),
            (job.tolerations, "toleration"),
        ):
            if given:
                raise SubmitError(f"docker: one engine has no {what}; leave it out, or submit to Kubernetes or Slurm")
        for variable, reference in job.secrets.items():
            if variable not in os.environ:
                raise SubmitError(
                    f"secret {variable} ({reference}): Docker keeps none; export {variable} in this shell, "
                    "and its value goes to the containers by name"
                )
        start_nodes(job, self._options)  # raises for amounts that are none
        check_folders(job, user(job, self._options))

    def render(self, job: Job) -> str:
        """A script for ``sh``."""
        self.check(job)
        return script(job, self._options)

    def submit(self, job: Job) -> str:
        """Start the containers; those of an earlier start of this run, all ended, make room for them."""
        self.check(job)
        former = nodes_of(job.name)
        if any(not node.has_ended for node in former):
            raise SubmitError(f"{job.name} is {status_of(former).state}: cancel it first, or choose another name")
        check_image(job)
        self._write_config(job)
        _remove(job.name, former)
        started: list[str] = []
        docker(*words(make_network(job))[1:])
        try:
            for node, command in enumerate(start_nodes(job, self._options)):
                started.append(f"{job.name}-{node}")
                docker(*words(command)[1:])
        except BaseException:
            _remove(job.name, nodes_of(job.name))
            raise
        return f"{job.name}: {len(started)} containers of {job.image} started: {', '.join(started)}"

    def status(self, name: str) -> Status:
        """Of the run of that name."""
        return status_of(nodes_of(name))

    def logs(self, name: str, *, follow: bool = False, rank: int | None = None) -> Iterator[str]:
        """Lines of all nodes, each behind its container's name, or of the node where ``rank`` is."""
        nodes = _existing(name)
        if rank is not None:
            nodes = [node for node in nodes if node.number == rank // node.ranks]
            if not nodes:
                raise SubmitError(f"{name} has no rank {rank}")
        return merged_lines([node.name for node in nodes], follow=follow)

    def cancel(self, name: str) -> str:
        """Stop it with a checkpoint, within its grace time, and remove its containers and network."""
        nodes = _existing(name)
        up = [node for node in nodes if not node.has_ended]
        if up:
            seconds = max(node.stop_seconds for node in up) + STOP_SECONDS
            docker("stop", *(node.name for node in up), deadline_seconds=seconds)
        status = status_of(nodes_of(name))
        _remove(name, nodes)
        return f"{name}: {status.state}, {status.detail}; its containers are removed"

    def _check_options(self, job: Job) -> None:
        if self._options.user is not None and not _USER.fullmatch(self._options.user):
            raise SubmitError(f"--user {self._options.user}: give two numbers, UID:GID")
        if self._options.restarts < 0:
            raise SubmitError(f"--max-restarts {self._options.restarts}: give 0 or more")
        if self._options.restarts and job.nodes > 1:
            raise SubmitError(
                "--max-restarts is for one node: after a failure of several, submit the run again, and all nodes start"
            )
        if self._options.publish_metrics and serves_itself_alone(job.config_text):
            raise SubmitError(
                "--publish-metrics: the ranks serve their container's own loopback; set metrics.address = '0.0.0.0'"
            )
        if is_of_another_machine(host := os.environ.get("DOCKER_HOST")):
            raise SubmitError(
                f"DOCKER_HOST={host} is another machine, which does not see this one's folders: submit there"
            )

    def _write_config(self, job: Job) -> None:
        """And have the image's trainer check it where it lies; what it refuses does not stay."""
        folder, config = output_folder(job), config_file(job)
        is_new = not folder.exists()
        former = config.read_bytes() if config.exists() else None
        try:
            if is_new:
                uid, _, gid = user(job, self._options).partition(":")
                folder.mkdir(parents=True)
                if os.getuid() == 0:
                    os.chown(folder, int(uid), int(gid))
            write_file(config, job.config_text)
        except OSError as error:
            raise SubmitError(f"run.output {folder}: {error.strerror or error}; make it, writable for you") from None
        try:
            check_run(job, self._options)
        except BaseException:
            config.unlink() if former is None else write_file(config, former.decode())
            if is_new:
                folder.rmdir()
            raise


def _existing(name: str) -> list[Node]:
    nodes = nodes_of(name)
    if not nodes:
        raise SubmitError(f"{name}: no such run on this engine; docker ps --all --filter label=pfc.name lists them")
    return nodes


def _remove(name: str, nodes: list[Node]) -> None:
    """Containers and network of that run, and nobody else's."""
    if nodes:
        docker("rm", "--force", *(node.name for node in nodes))
    with suppress(SubmitError):  # another's container may have joined it since
        for network in docker("network", "ls", "--quiet", "--filter", f"label=pfc.name={name}").split():
            docker("network", "rm", network)


TARGET: type[Target] = DockerTarget
