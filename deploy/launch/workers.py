"""The worker processes of this launcher, as the kernel tells of them."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def workers() -> dict[int, str]:
    """State letter by process id of the children that this process's main thread has started.

    R runs, S sleeps, T is stopped (frozen); ended ones that nobody has asked about yet (Z) are left out.
    """
    me = os.getpid()
    states = {}
    for process in Path(f"/proc/{me}/task/{me}/children").read_text().split():
        with suppress(OSError, IndexError):  # ended meanwhile
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX":
                states[int(process)] = state
    return states


def send(number: int, processes: Iterable[int]) -> None:
    """Signal these workers, and none of the helpers they may have started."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)
