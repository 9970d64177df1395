"""Ranks under the watchdog to which something happens; nothing else of a training, so that they start quickly.

python doomed_ranks.py FOLDER    plays all cases and writes FOLDER/outcomes.json

The ranks are forked from a process that has imported torch once: each begins in some hundredths of a second.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # loaded once, before the ranks are forked: joining needs it
from ports import free_port
from torch._C._distributed_c10d import TCPStore

from trainer.complaint import complain
from trainer.errors import ConfigError, ExitCode, PeerFailedError
from trainer.failure import exit_code
from trainer.failure_config import FailureConfig
from trainer.pulse import OPENING, STEP, Pulse
from trainer.stopping import StopRequest, stop_on_signals
from trainer.watched_world import watched_world
from trainer.world import World

LIMITS = FailureConfig(join_seconds=15, silence_seconds=6, stall_seconds=7)
KILLED, FROZEN, ABSENT = -signal.SIGKILL, "frozen", "absent"
AT_ONCE = 4  # cases: their ranks mostly wait, but all want to be heard in time
DEADLINE_SECONDS = 60.0  # the project's promise, with limits shorter than its own

Happening = Callable[[World, Pulse, StopRequest], None]


@dataclass(frozen=True)
class Case:
    """happening: what each rank does. ends: exit code by rank, or FROZEN, or ABSENT. told: in every survivor's line."""

    happening: Happening
    ends: tuple[int | str, ...]
    told: tuple[str, ...] = ()
    host: str = "launcher"  # of the store: "launcher", "rank 0"; "killed" and "frozen" happen to a launcher
    untold: tuple[int, ...] = ()  # ranks that end without a line of their own

    @property
    def world_size(self) -> int:
        return len(self.ends)


def exchange(steps: int) -> None:
    for _ in range(steps):
        dist.all_reduce(torch.ones(1))


def train(world: World, pulse: Pulse, at_step: int, happen: Callable[[], None] | None) -> None:
    """Steps until somebody fails; ``happen`` in the middle of one."""
    for step in range(1, 100_000):
        pulse.enter(STEP, step)
        pulse.enter_part("data")
        if step == at_step and happen is not None:
            happen()
        pulse.enter_part("head")
        exchange(1)


def on(victim: int, happen: Callable[[], None]) -> Happening:
    return lambda world, pulse, stop: train(world, pulse, 5, happen if world.rank == victim else None)


def die(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def fail(error: Exception) -> Callable[[], None]:
    def happen() -> None:
        raise error

    return happen


def fails_while_the_others_are_busy(world: World, pulse: Pulse, stop: StopRequest) -> None:
    """The others are not inside a collective: nothing but the watchdog can reach them."""
    pulse.enter(OPENING)
    if world.rank == 1:
        raise ConfigError("data.records: not on this machine")
    time.sleep(600)


def frozen_for_a_while(world: World, pulse: Pulse, stop: StopRequest) -> None:
    """Shorter than silence may last: somebody else continues it."""
    if world.rank == 1:
        if os.fork() == 0:
            time.sleep(1.0)
            os.kill(os.getppid(), signal.SIGCONT)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGSTOP)
    exchange(5)


def slow_but_alive(world: World, pulse: Pulse, stop: StopRequest) -> None:
    """Opening data takes one rank longer than silence or a stalled step may last."""
    pulse.enter(OPENING)
    if world.rank == 1:
        time.sleep(10.0)
    exchange(2)


def dies_in_the_last_barrier(number: int) -> Happening:
    def happening(world: World, pulse: Pulse, stop: StopRequest) -> None:
        exchange(2)
        if world.rank == 1:
            os.kill(os.getpid(), number)

    return happening


def nothing(world: World, pulse: Pulse, stop: StopRequest) -> None:
    exchange(5)


def exchange_for_ever(world: World, pulse: Pulse, stop: StopRequest) -> None:
    train(world, pulse, 0, None)


def peers_only_say_that_somebody_failed(world: World, pulse: Pulse, stop: StopRequest) -> None:
    """As agreement.together does: the others learn the reason from the store."""
    if world.rank == 1:
        raise OSError(28, "No space left on device", "/data/out")
    raise PeerFailedError("checkpoint: another rank failed; see its log")


CASES = {
    "all is well": Case(nothing, (0, 0, 0)),
    "killed in a collective": Case(
        on(1, die(signal.SIGKILL)), (1, KILLED, 1), ("rank 1 (", "ended without a word, last seen in")
    ),
    "frozen in a collective": Case(on(2, die(signal.SIGSTOP)), (1, 1, FROZEN), ("rank 2 (", "has been silent for")),
    "the watching rank is frozen": Case(
        on(0, die(signal.SIGSTOP)), (FROZEN, 1, 1), ("rank 0 (", "has been silent for")
    ),
    "frozen for a while": Case(frozen_for_a_while, (0, 0, 0)),
    "slow but alive": Case(slow_but_alive, (0, 0, 0)),
    "an exception on one rank": Case(
        on(1, fail(ValueError("boom"))),
        (1, 1, 1),
        ("rank 1 (", "failed, in step 5 (data): ValueError: boom"),
        untold=(1,),
    ),
    "memory runs out on one rank": Case(
        on(2, lambda: torch.empty(1 << 62, dtype=torch.uint8) and None),
        (1, 1, 1),
        ("rank 2 (", "failed, in step 5 (data): out of memory: lower data.batch_size"),
        untold=(2,),
    ),
    "bad input on one rank": Case(fails_while_the_others_are_busy, (2, 2, 2), ("data.records: not on this machine",)),
    "a failure that all agree on": Case(
        peers_only_say_that_somebody_failed,
        (1, 1, 1),
        ("rank 1 (", "failed, in joining the other ranks: OSError: [Errno 28] No space left on device"),
        untold=(1,),
    ),
    "stuck": Case(on(1, lambda: time.sleep(600)), (1, 1, 1), ("rank 1 (", "in step 5 (data), got no further for ")),
    "never comes": Case(nothing, (1, ABSENT, 1), ("rank 1 did not come within 15 s",)),
    "killed while leaving": Case(
        dies_in_the_last_barrier(signal.SIGKILL), (1, KILLED, 1), ("rank 1 (", "ended without a word")
    ),
    # Whether its name is told depends on who loses patience first.
    "frozen while leaving": Case(
        dies_in_the_last_barrier(signal.SIGSTOP), (1, FROZEN, 1), ("run the same command again",)
    ),
    "the launcher of the first node is killed": Case(
        exchange_for_ever, (1, 1, 1), ("the store where the ranks meet is gone",), host="killed"
    ),
    "the machine with the store is lost": Case(
        exchange_for_ever, (1, 1, 1), ("no answer from the store where the ranks meet for ",), host="frozen"
    ),
    "rank 0 keeps the store and is killed": Case(
        on(0, die(signal.SIGKILL)),
        (KILLED, 1, 1),
        # gone, or not answering yet where a rank's watchdog had no time to connect
        ("the store where the ranks meet ", "rank 0 or the launcher of the first node"),
        host="rank 0",
    ),
    "rank 0 keeps the store and all is well": Case(nothing, (0, 0, 0), host="rank 0"),
}


def rank_main(rank: int, world_size: int, port: int, own_store: bool, case: Case, folder: Path) -> None:
    sys.stderr = (folder / f"rank{rank}.err").open("w")
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE=str(not own_store),
    )
    pulse, code = Pulse(), ExitCode.DONE
    try:
        with (
            stop_on_signals() as stop,
            watched_world("cpu", expected_size=None, timeout_seconds=60, limits=LIMITS, pulse=pulse, stop=stop) as (
                world,
                _,
            ),
        ):
            (folder / f"rank{rank}.joined").touch()
            case.happening(world, pulse, stop)
    except (ConfigError, PeerFailedError) as error:
        code = complain(str(error), exit_code(error))
    except Exception as error:
        code = exit_code(error)
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def forked(action: Callable[[], None]) -> int:
    process = os.fork()
    if process == 0:
        try:
            action()
        finally:
            os._exit(99)
    return process


def store_of_a_launcher() -> tuple[int, int]:
    """Its process and port."""
    reading, writing = os.pipe()

    def serve() -> None:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(writing, str(store.port).encode())
        time.sleep(600)

    process = forked(serve)
    port = int(os.read(reading, 16))
    os.close(reading)
    os.close(writing)
    return process, port


class Doomed:
    """One case, running."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self._folder = case, folder
        folder.mkdir()
        own_store = case.host == "rank 0"
        self._host, port = (None, free_port()) if own_store else store_of_a_launcher()
        self._ranks = {
            rank: forked(lambda rank=rank: rank_main(rank, case.world_size, port, own_store, case, folder))
            for rank, end in enumerate(case.ends)
            if end != ABSENT
        }
        self._statuses: dict[int, int] = {}

    def strike_host(self) -> None:
        """What happens to the launcher, once all ranks have met."""
        if self._host is None or self.case.host not in ("killed", "frozen"):
            return
        end = time.monotonic() + DEADLINE_SECONDS
        while len(list(self._folder.glob("*.joined"))) < len(self._ranks) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(self._host, signal.SIGKILL if self.case.host == "killed" else signal.SIGSTOP)

    def is_over(self) -> bool:
        """Whether all have ended that are not frozen."""
        waited = [rank for rank in self._ranks if self.case.ends[rank] != FROZEN]
        for rank in waited:
            if rank not in self._statuses:
                process, status = os.waitpid(self._ranks[rank], os.WNOHANG)
                if process:
                    self._statuses[rank] = os.waitstatus_to_exitcode(status)
        return all(rank in self._statuses for rank in waited)

    def outcome(self) -> dict[int, dict[str, object]]:
        """Exit code (None: still there at the deadline) and output by rank; nobody is left."""
        for rank, process in self._ranks.items():
            if rank not in self._statuses:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
        if self._host is not None:
            os.kill(self._host, signal.SIGKILL)
            os.waitpid(self._host, 0)
        return {
            rank: {"code": self._statuses.get(rank), "printed": (self._folder / f"rank{rank}.err").read_text()}
            for rank in self._ranks
            if self.case.ends[rank] != FROZEN
        }


def play(folder: Path) -> None:
    outcomes = {}
    names = list(CASES)
    for first in range(0, len(names), AT_ONCE):
        together = names[first : first + AT_ONCE]
        doomed = {name: Doomed(CASES[name], folder / str(names.index(name))) for name in together}
        for each in doomed.values():
            each.strike_host()
        end = time.monotonic() + DEADLINE_SECONDS
        while not all(each.is_over() for each in doomed.values()) and time.monotonic() < end:
            time.sleep(0.02)
        outcomes |= {name: each.outcome() for name, each in doomed.items()}
    (folder / "outcomes.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    play(Path(sys.argv[1]))
