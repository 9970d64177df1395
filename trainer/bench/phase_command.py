"""One command of a journey: in a session of its own, watched for its memory, and gone when its time is up."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trainer
from trainer.bench.process_memory import MemoryWatch, descendants
from trainer.errors import ConfigError, ExitCode, PeerFailedError
from trainer.world import for_a_launcher

LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Phase:
    """What a command took. peak_resident: by process id, largest resident size, bytes. peak_together: largest sum of
    proportional sizes of all of its processes, bytes.
    """

    name: str
    seconds: float
    peak_resident: dict[int, int]
    peak_together: int
    printed: str = ""


class PhaseCommand:
    """A command that runs; ``end``: time.monotonic() at which it is killed."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", watch: MemoryWatch, end: float) -> None:
        self.name = name
        self.process = process
        self._watch, self._end = watch, end
        self._began = time.monotonic()

    def wait_for(self, found: Callable[[], bool], what: str) -> None:
        """Return as soon as ``found`` does. Raises PeerFailedError where the command ends or its time is up before."""
        while not found():
            if self.process.poll() is not None:
                raise PeerFailedError(f"{self.name} came to no {what}: exit code {self.process.returncode}")
            self._check_time()
            time.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Count memory now, and not a second later."""
        self._watch.look()

    def finish(self, *, expected: int = 0) -> Phase:
        """Wait for its end. Raises PeerFailedError for another exit code, or where its time is up."""
        printed = ""
        while True:
            try:
                printed, _ = self.process.communicate(timeout=1.0)
                break
            except subprocess.TimeoutExpired:
                self._check_time()
        if self.process.returncode != expected:
            text = f"{self.name} failed: exit code {self.process.returncode} in place of {expected}"
            if self.process.returncode == ExitCode.BAD_INPUT:
                raise ConfigError(f"{text}; what it said is above")
            raise PeerFailedError(f"{text}; what it said is above")
        seconds = time.monotonic() - self._began
        return Phase(self.name, seconds, dict(self._watch.peak_resident), self._watch.peak_proportional, printed or "")

    def _check_time(self) -> None:
        if time.monotonic() > self._end:
            raise PeerFailedError(f"{self.name} was killed: the time for all of it is up (--deadline-minutes)")


@contextmanager
def phase_command(
    name: str, arguments: Sequence[str], *, threads: int, end: float, captured: bool = False
) -> Iterator[PhaseCommand]:
    """``python -m ARGUMENTS`` as a user starts it, with so many threads of arithmetic; it and its processes are gone
    after the block, or when this process is killed. captured: what it prints is kept and not shown.
    """
    here = str(Path(trainer.__file__).parents[1])  # the same code, whatever is installed
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.launch.worker", str(os.getpid()), "-m", *arguments],
        # A thread that waits by spinning takes the time of others, of writers of checkpoints too.
        env=for_a_launcher(here) | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if captured else None,
        text=True,
        start_new_session=True,
    )
    try:
        with MemoryWatch(process.pid) as watch:
            yield PhaseCommand(name, process, watch, end)
    finally:
        if process.poll() is None:
            # Workers of a launcher live in sessions of their own.
            for pid in descendants(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.communicate()
