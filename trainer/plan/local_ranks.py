"""Ranks of this machine, started for a measurement; none outlives it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from trainer.errors import ConfigError, ExitCode, PeerFailedError
from trainer.world import for_a_rank


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that ranks and files go with it; on the main thread."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def local_ranks(module_arguments: Sequence[str], ranks: int) -> Iterator[list[subprocess.Popen[str]]]:
    """``python -m ARGUMENTS`` as every rank of a world on this machine, each with an equal part of the cores; all are
    gone after the block.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    processes: list[subprocess.Popen[str]] = []
    try:
        for rank in range(ranks):
            # A thread that waits by spinning takes the time of others, and counts it as its own.
            environment = for_a_rank(rank, ranks, port) | {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"}
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", *module_arguments],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
        for process in processes:
            process.communicate()


def outcome(
    processes: Sequence["subprocess.Popen[str]"], *, deadline_seconds: float, watch: Callable[[], None] = lambda: None
) -> str:
    """What rank 0 printed, when all have ended well; ``watch`` is called meanwhile, again and again.

    Raises PeerFailedError with a failed rank's last line and exit code, ConfigError when they take longer than the
    deadline.
    """
    end = time.monotonic() + deadline_seconds
    while any(process.poll() is None for process in processes):
        watch()
        if any(process.poll() for process in processes):
            break
        if time.monotonic() > end:
            raise ConfigError(f"measuring took longer than {deadline_seconds:.0f} s: is the machine busy?")
        time.sleep(0.05)
    for rank, process in enumerate(processes):
        if process.poll():
            lines = (process.communicate()[1] or "").strip().splitlines() or ["no word"]
            text = f"measuring failed on rank {rank} (exit code {process.returncode}): {lines[-1]}"
            known = process.returncode in set(ExitCode)
            raise PeerFailedError(text, ExitCode(process.returncode) if known else ExitCode.FAILURE)
    return processes[0].communicate()[0]
