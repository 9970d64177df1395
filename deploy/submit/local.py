"""This machine as a target: one launcher for each "node", in the background, started again together."""

import argparse
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from data_pipeline.pending_file import write_file
from deploy.submit.counted import counted
from deploy.submit.environment import for_a_launcher, state_folder
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Resources
from deploy.submit.local_launch import launcher_command, launcher_settings
from deploy.submit.local_state import CONFIG, LocalState, Plan, last_attempt, output_file
from deploy.submit.output_files import read_lines
from deploy.submit.registry import Registry
from deploy.submit.target import LIVE, Status

START_SECONDS = 30.0
SUPERVISOR_OUTPUT = "supervisor.log"


class LocalTarget:
    """See :class:`deploy.submit.target.Target`."""

    def __init__(self, max_restarts: int) -> None:
        if max_restarts < 0:
            raise SubmitError(f"--max-restarts {max_restarts}: give 0 or more")
        self._max_restarts = max_restarts
        self._registry = Registry(state_folder())

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """``--max-restarts``."""
        parser.add_argument(
            "--max-restarts", type=int, default=3, metavar="N", help="after failures, of all nodes together (default 3)"
        )

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "LocalTarget":
        """With these options."""
        return cls(arguments.max_restarts)

    def check(self, job: Job) -> None:
        """Refuse what a machine without a scheduler cannot promise, and nodes that would be in each other's way."""
        for option, is_given, why in (
            ("--image", job.image is not None, "nothing runs in containers here: pfc submit docker"),
            ("--queue", job.queue is not None, "there is no queue on one machine"),
            ("--cpus, --memory, --shm", job.resources != Resources(), "nothing sets limits here: pfc submit docker"),
            ("--volume", bool(job.volumes), "the run sees this machine's own folders"),
            ("--toleration", bool(job.tolerations), "that is for Kubernetes"),
            ("--node-selector", bool(job.node_selector), "that is for Kubernetes"),
            ("--secret", bool(job.secrets), "there is no store of secrets: exported variables reach the run"),
        ):
            if is_given:
                raise SubmitError(f"{option}: {why}; leave it out")
        if job.nodes > 1 and job.gpus:
            raise SubmitError(
                f"--nodes {job.nodes} --gpus-per-node: on one machine all nodes would take the same GPUs; use --nodes 1"
            )
        metrics = tomllib.loads(job.config_text).get("metrics", {})
        if job.nodes > 1 and job.metrics_port is not None and metrics.get("port_in_use") != "next":
            raise SubmitError(
                f"metrics.port {job.metrics_port}: on one machine all nodes would listen there; "
                "--set metrics.port_in_use=next"
            )

    def render(self, job: Job) -> str:
        """The commands, for a shell; the port is chosen when they are started."""
        folder = self._registry.folder_of(job.name)
        lines = [f"# {folder / CONFIG}", *(f"#   {line}".rstrip() for line in job.config_text.splitlines())]
        plan = self._plan(job)
        for node in range(job.nodes):
            words = [f"{key}={value}" for key, value in launcher_settings(plan, node, "PORT").items()]
            lines.append(f"env {shlex.join([*words, *launcher_command(plan, folder)])} &")
        return "\n".join([*lines, f"# started again together after a failure, {plan.max_restarts} times at most", ""])

    def submit(self, job: Job) -> str:
        """Start the supervisor, which starts the launchers."""
        folder = self._registry.folder_of(job.name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(folder / CONFIG, job.config_text)
        self._plan(job).write(folder)
        with (folder / SUPERVISOR_OUTPUT).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.submit.local_supervisor", str(folder)],
                cwd=Path.cwd(),
                env=for_a_launcher({}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + START_SECONDS
        try:
            while (state := LocalState.read(folder)) is None or state.supervisor.pid != process.pid:
                if process.poll() is not None or time.monotonic() > end:
                    raise SubmitError(f"{job.name}: its supervisor did not start; see {folder / SUPERVISOR_OUTPUT}", 1)
                time.sleep(0.02)
        except BaseException:  # interrupted, too: nobody would know of it
            process.kill()
            raise
        process.returncode = 0  # it goes on without us, and nobody waits for it: Python would warn of it
        nodes, ranks = counted(job.nodes, "node"), counted(job.ranks_per_node, "rank")
        return f"{job.name}: started {nodes} of {ranks}; output in {folder}"

    def status(self, name: str) -> Status:
        """As the supervisor tells; without one that lives, the run is over."""
        state = LocalState.read(self._registry.folder_of(name))
        if state is None:
            return Status("unknown", "its supervisor has told nothing")
        if state.state not in LIVE or state.supervisor.is_alive:
            return Status(state.state, state.detail, state.exit_code)
        # It may have told its end between the two.
        again = LocalState.read(self._registry.folder_of(name))
        if again is not None and again.state not in LIVE:
            return Status(again.state, again.detail, again.exit_code)
        return Status("failed", "its supervisor was killed, and its ranks with it: submit it again to go on")

    def logs(self, name: str, *, follow: bool = False, rank: int | None = None) -> Iterator[str]:
        """Of the newest attempt, and with ``follow`` of those after it; of a rank: all that its node printed."""
        folder = self._registry.folder_of(name)
        plan = Plan.read(folder)
        nodes = range(plan.nodes) if rank is None else [rank // plan.ranks_per_node]
        first = last_attempt(folder)

        def files() -> Mapping[Path, str]:
            attempts = range(max(first, 1), last_attempt(folder) + 1)
            prefixed = len(nodes) > 1
            return {
                output_file(folder, attempt, node): f"node {node}: " if prefixed else ""
                for attempt in attempts
                for node in nodes
            }

        return read_lines(files, follow=follow, is_live=lambda: self.status(name).state in LIVE)

    def cancel(self, name: str) -> str:
        """SIGTERM to all launchers, by way of the supervisor."""
        state = LocalState.read(self._registry.folder_of(name))
        if state is None or state.state not in LIVE or not state.supervisor.send(signal.SIGTERM):
            raise SubmitError(f"'{name}' is not running: {self.status(name).state}")
        return f"{name}: asked to stop; its ranks write a checkpoint and end (pfc cancel {name} again: at once)"

    def _plan(self, job: Job) -> Plan:
        return Plan(
            name=job.name,
            python=sys.executable,
            folder=str(Path.cwd()),
            nodes=job.nodes,
            ranks_per_node=job.ranks_per_node,
            settings={**job.passed_through, **job.environment},
            max_restarts=self._max_restarts,
            grace_seconds=job.grace_seconds,
            deadline_seconds=job.deadline_seconds,
        )


TARGET = LocalTarget
