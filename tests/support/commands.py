"""Run the project's commands as a user does, each in its own process group under a hard deadline."""

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def error_lines(self) -> list[str]:
        """What pfc itself complained of, without the launcher's own lines."""
        return [line for line in self.err.splitlines() if line.startswith("pfc: error:")]


def environment() -> dict[str, str]:
    """This process's, with one arithmetic thread and without a launcher's variables."""
    dropped = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {key: value for key, value in os.environ.items() if key not in dropped} | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }


def pfc(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "trainer", *map(str, arguments)]


def torchrun(ranks: int, *arguments: str | Path) -> list[str]:
    """``torchrun -m trainer ...``; standalone mode takes a port the kernel gives."""
    script = Path(sysconfig.get_path("scripts")) / "torchrun"
    launcher = [str(script), "--standalone", "--nproc-per-node", str(ranks)]
    return [sys.executable, *launcher, "-m", "trainer", *map(str, arguments)]


@contextmanager
def running(command: Sequence[str], *, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """Start; whatever happens in the block, the whole process group is gone after it."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run(command: Sequence[str], *, cwd: Path, deadline_seconds: float = 120.0) -> Finished:
    with running(command, cwd=cwd) as process:
        out, err = process.communicate(timeout=deadline_seconds)
        return Finished(process.returncode, out, err)
