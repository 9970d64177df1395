"""Run the project's commands as a user does, under a hard deadline; no process they start outlives them.

A launcher's workers live in sessions of their own and outlive a launcher that is killed. So every command carries a
mark in its environment, which its descendants inherit, and /proc tells who carries it.
"""

import os
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from command_server import CommandServer

ROOT = Path(__file__).parents[2]
MARK = "PFC_TEST_COMMAND"
PFC = [sys.executable, "-m", "trainer"]


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
    return [*PFC, *map(str, arguments)]


def torchrun(ranks: int, *arguments: str | Path) -> list[str]:
    """``torchrun -m trainer ...``; standalone mode takes a port the kernel gives."""
    script = Path(sysconfig.get_path("scripts")) / "torchrun"
    launcher = [str(script), "--standalone", "--nproc-per-node", str(ranks)]
    return [sys.executable, *launcher, "-m", "trainer", *map(str, arguments)]


def marked(mark: str) -> list[int]:
    """Ids of the live processes whose environment carries the mark; zombies have no environment any more."""
    entry = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile, or another user's
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def kill_marked(mark: str, *, deadline_seconds: float = 20.0) -> None:
    """Kill until none is left: a process may start another one while it is being killed."""
    end = time.monotonic() + deadline_seconds
    while survivors := marked(mark):
        for survivor in survivors:
            with suppress(ProcessLookupError):
                os.kill(survivor, signal.SIGKILL)
        assert time.monotonic() < end, f"processes {survivors} cannot be killed"
        time.sleep(0.02)


def launch(ranks: int, *arguments: str | Path, restarts: int = 0) -> list[str]:
    """``python -m deploy.launch.agent ... -m trainer ...``: this node alone."""
    launcher = ["-m", "deploy.launch.agent", "--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
    return [sys.executable, *launcher, "-m", "trainer", *map(str, arguments)]


def ranks_of(mark: str) -> dict[int, int]:
    """Process id by rank of the live workers among the marked processes."""
    found = {}
    for number in marked(mark):
        with suppress(OSError):
            for entry in Path(f"/proc/{number}/environ").read_bytes().split(b"\0"):
                if entry.startswith(b"RANK="):
                    found[int(entry[5:])] = number
    return found


@contextmanager
def running(
    command: Sequence[str],
    *,
    cwd: Path,
    mark: str | None = None,
    printed: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Start; whatever happens in the block, the command and all its descendants are gone after it.

    Their temporary files lie under ``cwd`` too, not in the machine's /tmp. mark: to find them by, else one is made up.
    printed: a file for all that they print, for commands whose pipes nobody empties in time. more: variables.
    """
    mark = mark or uuid.uuid4().hex
    temporary = cwd / ".tmp"
    temporary.mkdir(exist_ok=True)
    with printed.open("w") if printed else nullcontext(subprocess.PIPE) as target:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment() | dict(more or {}) | {MARK: mark, "TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=target,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:  # its id is still its own; without /proc this is all that can be done
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        kill_marked(mark)
        # Only now do the pipes end: survivors would have held them open.
        process.communicate()


def run(command: Sequence[str], *, cwd: Path, deadline_seconds: float = 120.0) -> Finished:
    """To its end, as a user starts it."""
    with running(command, cwd=cwd) as process:
        out, err = process.communicate(timeout=deadline_seconds)
        return Finished(process.returncode, out, err)


def run_warm(command: Sequence[str], *, cwd: Path, deadline_seconds: float = 120.0) -> Finished:
    """:func:`run` for a :func:`pfc` command, forked from a process that has imported everything: for tests of what
    commands do, of which there are many, not of how they start and end.
    """
    if list(command[: len(PFC)]) != PFC:
        return run(command, cwd=cwd, deadline_seconds=deadline_seconds)
    mark, temporary = uuid.uuid4().hex, cwd / ".tmp"
    temporary.mkdir(exist_ok=True)
    with TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        out.touch()
        err.touch()
        request = {
            "arguments": list(command[len(PFC) :]),
            "cwd": str(cwd),
            "environment": environment() | {MARK: mark, "TMPDIR": str(temporary)},
            "out": str(out),
            "err": str(err),
        }
        try:
            code = CommandServer.shared(environment()).run(request, deadline_seconds=deadline_seconds)
        finally:
            kill_marked(mark)
        return Finished(code, out.read_text(), err.read_text())
