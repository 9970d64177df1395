"""Training commands one after another, each in processes of its own, forked from one that has imported torch once.

python forked_trainers.py JOBS.json    writes what each rank returned, and said, into JOBS.json.done
"""

import importlib
import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from commands import run as run_command
from interruptions import interrupt
from poisoned_trainer import poisoned
from ports import free_port

import trainer.building
from trainer.cli import main
from trainer.engine.deepspeed_library import import_deepspeed

DEADLINE_SECONDS = 90.0  # of one command
# What each would import for itself, some seconds long; threads start with none of them.
PRELOADED = ("torch._dynamo", "torch.distributed.nn.functional", "torch.distributed.checkpoint")


@dataclass(frozen=True)
class Job:
    """A command on ``ranks`` ranks; ``place``, ``signal``, ``rank``: who gets which signal where, see interruptions.

    output: the run's folder. poison: in which forward passes the last rank's embeddings become infinite, see
    poisoned_trainer.
    """

    arguments: list[str]
    output: str
    ranks: int = 1
    place: str | None = None
    signal: int = signal.SIGKILL
    rank: int = 0
    poison: str = ""


@dataclass(frozen=True)
class Ended:
    """codes: by rank, negative for a signal. told: what each rank printed. left: all paths below ``output``."""

    codes: list[int]
    told: list[str]
    left: list[str]


def run_jobs(jobs: dict[str, Job], folder: Path, *, deadline_seconds: float = 280.0) -> dict[str, Ended]:
    """To be called by a test: what became of each job, in order; no process outlives the call."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / "jobs.json"
    listed.write_text(json.dumps({name: asdict(job) for name, job in jobs.items()}))
    done = run_command([sys.executable, __file__, str(listed)], cwd=folder, deadline_seconds=deadline_seconds)
    assert done.code == 0, done.err
    ended = json.loads((folder / "jobs.json.done").read_text())
    return {name: Ended(**each) for name, each in ended.items()}


def run_forked(job: Job, told: list[Path]) -> Ended:
    """Fork the ranks and wait for them; a rank does not return from here."""
    port = free_port() if job.ranks > 1 else 0
    ranks = []
    for rank in range(job.ranks):
        number = os.fork()
        if number == 0:
            sys.exit(become(job, rank, port, told[rank]))
        ranks.append(number)
    codes: dict[int, int] = {}
    end = time.monotonic() + DEADLINE_SECONDS
    while len(codes) < len(ranks):
        assert time.monotonic() < end, f"{job}: {codes} of {ranks}: {[path.read_text() for path in told]}"
        time.sleep(0.01)
        for number in ranks:
            if number not in codes and (found := os.waitpid(number, os.WNOHANG))[0]:
                codes[number] = os.waitstatus_to_exitcode(found[1])
    left = sorted(str(path.relative_to(job.output)) for path in Path(job.output).rglob("*"))
    return Ended([codes[number] for number in ranks], [path.read_text() for path in told], left)


def become(job: Job, rank: int, port: int, told: Path) -> int:
    """This process is a rank from here on."""
    with told.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if job.ranks > 1:
        place = {"RANK": rank, "WORLD_SIZE": job.ranks, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {key: str(value) for key, value in (place | {"MASTER_PORT": port}).items()}
    if job.place is not None and rank == job.rank:
        interrupt(job.place, job.signal)
    if job.poison:
        trainer.building.build_backbone = poisoned(job.poison)
    return main(job.arguments)


def every_job(listed: Path) -> dict[str, Ended]:
    """Of the file."""
    jobs = {name: Job(**values) for name, values in json.loads(listed.read_text()).items()}
    if any("train.engine=deepspeed" in job.arguments for job in jobs.values()):
        os.environ["DS_ACCELERATOR"] = "cpu"
        import_deepspeed()
    ended = {}
    for name, job in jobs.items():
        ended[name] = run_forked(job, [listed.with_name(f"{name} {rank}.txt") for rank in range(job.ranks)])
    return ended


if __name__ == "__main__":
    for module in PRELOADED:
        importlib.import_module(module)
    path = Path(sys.argv[1])
    path.with_name(f"{path.name}.done").write_text(
        json.dumps({name: asdict(each) for name, each in every_job(path).items()})
    )
