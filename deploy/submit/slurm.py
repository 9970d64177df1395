"""A Slurm cluster as a target: one batch job, which has itself queued again until the run is done."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data_pipeline.pending_file import write_file
from deploy.submit.environment import state_folder
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job
from deploy.submit.output_files import read_lines
from deploy.submit.registry import Registry
from deploy.submit.slurm_commands import knows_job, slurm
from deploy.submit.slurm_script import (
    MEETING_SECONDS,
    PULL_SECONDS,
    SlurmOptions,
    megabytes,
    render_script,
)
from deploy.submit.target import LIVE, Status

WAITING = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "SPECIAL_EXIT",
    "SUSPENDED",
    "RESV_DEL_HOLD",
)
ACTIVE = ("RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING")
_TOO_MUCH = (
    "the partition does not have what it asks for, and it waits for ever: cancel it, ask for less or another --queue"
)
ADVICE = {  # by Slurm's reason for which a job waits
    # Above all of a job that is queued again, which Slurm keeps waiting for two minutes; its owner need not.
    "BeginTime": "sooner: scontrol update jobid={job} starttime=now",
    "PartitionConfig": _TOO_MUCH,
    "PartitionNodeLimit": _TOO_MUCH,
    "PartitionTimeLimit": _TOO_MUCH,
    "BadConstraints": _TOO_MUCH,
}
OF_CODES = {0: "done", 2: "bad input", 75: "stopped"}
NOTE = "slurm.json"
_LABELLED = re.compile(r" *(\d+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class SlurmNote:
    """What must be known again of a job. is_cancelled: whether it has been asked to stop from here."""

    job: str
    nodes: int
    ranks_per_node: int
    is_cancelled: bool = False


class SlurmTarget:
    """See :class:`deploy.submit.target.Target`."""

    def __init__(self, options: SlurmOptions) -> None:
        if options.max_restarts < 0:
            raise SubmitError(f"--max-restarts {options.max_restarts}: give 0 or more")
        if options.meeting_seconds is not None and options.meeting_seconds < 1:
            raise SubmitError(f"--meeting-seconds {options.meeting_seconds}: give 1 or more")
        for option in options.sbatch:
            if not option.startswith("-") or "\n" in option:
                raise SubmitError(f"--sbatch {option}: write an option of sbatch, as --sbatch=--account=NAME")
        self._options = options
        self._registry = Registry(state_folder())

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """``--max-restarts``, ``--python``, ``--meeting-seconds``, ``--sbatch``."""
        parser.add_argument(
            "--max-restarts", type=int, default=3, metavar="N", help="after failures, of the whole job (default 3)"
        )
        parser.add_argument(
            "--python", metavar="PATH", help="of the nodes (default: this one, on a folder that they share)"
        )
        parser.add_argument(
            "--meeting-seconds",
            type=int,
            metavar="N",
            help=f"that nodes wait for each other (default {MEETING_SECONDS}, with --image {PULL_SECONDS})",
        )
        parser.add_argument(
            "--sbatch", action="append", default=[], metavar="OPTION", help="one more, as --sbatch=--account=NAME"
        )

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "SlurmTarget":
        """With these options."""
        return cls(
            SlurmOptions(arguments.max_restarts, arguments.python, tuple(arguments.sbatch), arguments.meeting_seconds)
        )

    def check(self, job: Job) -> None:
        """Refuse what a batch job cannot carry."""
        for option, is_given, why in (
            ("--shm", job.resources.shm is not None, "/dev/shm is the node's own"),
            ("--toleration", bool(job.tolerations), "that is for Kubernetes"),
            ("--node-selector", bool(job.node_selector), "use --sbatch=--constraint=FEATURE"),
            ("--secret", bool(job.secrets), "Slurm keeps no secrets: exported variables reach the run"),
            ("--volume", bool(job.volumes) and job.image is None, "without --image the run sees the nodes' folders"),
        ):
            if is_given:
                raise SubmitError(f"{option}: {why}; leave it out")
        cpus, memory = job.resources.cpus, job.resources.memory
        if cpus is not None and not (cpus.isdecimal() and int(cpus) > 0):
            raise SubmitError(f"--cpus {cpus}: Slurm gives whole ones")
        if memory is not None:
            megabytes(memory)
        if job.deadline_seconds is not None and job.grace_seconds > 65535:
            raise SubmitError(f"--grace {job.grace_seconds}: Slurm warns at most 65535 s before the time limit")
        for option, value in (("--queue", job.queue), ("--image", job.image)):
            if value is not None and not re.fullmatch(r"[\w./:@,#+-]+", value):
                raise SubmitError(f"{option} {value}: not a name")

    def render(self, job: Job) -> str:
        """The batch script."""
        python = self._options.python or (sys.executable if job.image is None else "python")
        return render_script(job, self._options, self._registry.folder_of(job.name), python)

    def submit(self, job: Job) -> str:
        """Hand the script to sbatch."""
        folder = self._registry.folder_of(job.name)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            answer = slurm(["sbatch", "--parsable"], content=self.render(job))
        except SubmitError as error:
            raise _with_partitions(error, job.queue) from None
        number = answer.strip().split(";")[0]
        _write(folder, SlurmNote(number, job.nodes, job.ranks_per_node))
        return f"{job.name}: Slurm's job {number}; output in {folder}"

    def status(self, name: str) -> Status:
        """As Slurm tells, and where it only knows that the job has ended, as the job has told itself."""
        folder = self._registry.folder_of(name)
        note = _read(folder)
        state, detail = self._state(note.job)
        where = f"job {note.job}{detail}"
        if state in WAITING:
            advice = ADVICE.get(detail.strip(" ()"), "").format(job=note.job)
            return Status("waiting", f"{where}; {advice}" if advice else where)
        if state in ACTIVE:
            return Status("running", where)
        told = _told(folder, note.job)
        if told is not None:
            code, is_cancelled = told
            ended = "cancelled" if is_cancelled and code != 0 else OF_CODES.get(code, "failed")
            advice = ": submit it again to go on" if ended in ("stopped", "cancelled") else ""
            return Status(ended, where + advice, code)
        if state == "COMPLETED":
            return Status("done", where, 0)
        if state.startswith("CANCELLED"):
            return Status("cancelled", where)
        if state:
            return Status("failed", f"{where}: {state}")
        return Status("unknown", f"Slurm has forgotten job {note.job}, and its script has told nothing of its end")

    def logs(self, name: str, *, follow: bool = False, rank: int | None = None) -> Iterator[str]:
        """Of all starts of the job; of a rank: all that its node printed."""
        folder = self._registry.folder_of(name)
        note = _read(folder)
        path = folder / f"slurm-{note.job}.log"
        wanted = None if rank is None else rank // note.ranks_per_node
        for line in read_lines(lambda: {path: ""}, follow=follow, is_live=lambda: self.status(name).state in LIVE):
            match = _LABELLED.fullmatch(line)
            node = None if match is None else int(match[1])
            if match is None:
                yield line  # of the script itself
            elif wanted is None and note.nodes > 1:
                yield f"node {node}: {match[2]}"
            elif node == wanted or wanted is None:
                yield match[2]

    def cancel(self, name: str) -> str:
        """The script is asked first; the second time, or while the job still waits, Slurm itself."""
        folder = self._registry.folder_of(name)
        note = _read(folder)
        status = self.status(name)
        if status.state not in LIVE:
            raise SubmitError(f"'{name}' is not running: {status.state}")
        _write(folder, replace(note, is_cancelled=True))
        if status.state == "waiting" or note.is_cancelled:
            slurm(["scancel", note.job])
            return f"{name}: job {note.job} is taken from Slurm; the newest checkpoint stays"
        slurm(["scancel", "--batch", "--signal=TERM", note.job])
        return f"{name}: asked to stop; its ranks write a checkpoint and end (pfc cancel {name} again: at once)"

    def _state(self, job: str) -> tuple[str, str]:
        """Slurm's word for it, "" for a job that it has forgotten; and where it is or why it waits."""
        try:
            answer = slurm(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T|%r|%N"])
        except SubmitError as error:
            if knows_job(error):
                raise
            answer = ""
        if answer.strip():
            state, reason, nodes = answer.strip().splitlines()[0].split("|")
            where = f" on {nodes}" if nodes else ""
            return state, where if reason == "None" else f"{where} ({reason})"
        try:
            accounted = slurm(
                ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}", "--format=State"]
            )
        except SubmitError:  # many clusters keep no accounts
            return "", ""
        return (accounted.split() or [""])[0], ""


TARGET = SlurmTarget


def _with_partitions(error: SubmitError, queue: str | None) -> SubmitError:
    if "nvalid partition" not in str(error):
        return error
    known = ", ".join(sorted(set(slurm(["sinfo", "--noheader", "--format=%R"]).split())))
    return SubmitError(f"--queue {queue}: Slurm has no such partition; it has {known}")


def _told(folder: Path, job: str) -> tuple[int, bool] | None:
    """Exit code, and whether it was cancelled, as the script told at its end."""
    try:
        words = (folder / f"{job}.ended").read_text(encoding="utf-8").split()
        return int(words[0]), "cancelled" in words[1:]
    except (OSError, ValueError, IndexError):
        return None


def _write(folder: Path, note: SlurmNote) -> None:
    write_file(folder / NOTE, json.dumps(asdict(note)) + "\n")


def _read(folder: Path) -> SlurmNote:
    try:
        return SlurmNote(**json.loads((folder / NOTE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise SubmitError(f"{folder / NOTE}: cannot be read ({error})", 1) from None
