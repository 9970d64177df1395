"""Signals to the launcher reach its workers, and what does not end in time is ended.

The launcher's main thread may sit in torch's rendezvous, where Python runs no signal handler; so a thread listens, to
which the interpreter writes each signal's number at once. torchrun's own way, an exception in the main thread, would
lose the workers' exit codes.
"""

import os
import signal
import sys
import threading
import time
from types import TracebackType

from deploy.launch.exit_codes import STOPPED
from deploy.launch.workers import send, workers

# A terminal that closes (HUP) asks for the same as SIGTERM; Slurm warns of its time limit by USR1.
FORWARDED = {
    signal.SIGTERM: signal.SIGTERM,
    signal.SIGINT: signal.SIGINT,
    signal.SIGHUP: signal.SIGTERM,
    signal.SIGUSR1: signal.SIGUSR1,
}
# What nohup and a shell's & have a command ignore stays ignored; SIGTERM is how everything else asks to stop.
MAY_BE_IGNORED = (signal.SIGHUP, signal.SIGINT)
TICK_SECONDS = 0.25
FROZEN_SECONDS = 5.0  # once a worker has ended; torch would wait 30 s for a frozen one to heed SIGTERM
LAST_SECONDS = 10.0  # after a second signal, which workers heed at once


class Relay:
    """A context manager around all that a launcher does."""

    def __init__(self) -> None:
        self._expected = 0
        self._grace_seconds = LAST_SECONDS
        self._deadline: float | None = None
        self._incomplete_since: float | None = None
        self._were_complete = False
        self._told: set[int] = set()
        self._closed = threading.Event()
        self.asked = False

    def __enter__(self) -> "Relay":
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._threads = [
            threading.Thread(target=work, name="pfc-relay", daemon=True) for work in (self._listen, self._watch)
        ]
        for thread in self._threads:
            thread.start()
        self._former_writing = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        deaf = {number for number in MAY_BE_IGNORED if signal.getsignal(number) == signal.SIG_IGN}
        self._former = {
            number: signal.signal(number, lambda number, frame: None) for number in FORWARDED if number not in deaf
        }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._former_writing)
        self._closed.set()
        os.close(self._writing)
        for thread in self._threads:
            thread.join()
        os.close(self._reading)

    def expect(self, workers: int, *, grace_seconds: float) -> None:
        """Workers that will be started; grace_seconds: for their checkpoint, after the first signal."""
        self._expected, self._grace_seconds = workers, grace_seconds

    def _listen(self) -> None:
        while numbers := os.read(self._reading, 64):
            for number in numbers:
                if number in FORWARDED:
                    self._hear(signal.Signals(number))

    def _hear(self, number: signal.Signals) -> None:
        seconds = LAST_SECONDS if self.asked and number != signal.SIGUSR1 else self._grace_seconds
        deadline = time.monotonic() + seconds
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
        self.asked = True
        found = workers()
        self._told |= found.keys()
        send(FORWARDED[number], found)
        if not found and not self._were_complete:
            # Nodes still wait for each other, where nothing else can be interrupted.
            say(f"{number.name} before the workers started: nothing is lost, run the same command again")
            os._exit(STOPPED)

    def _watch(self) -> None:
        while not self._closed.wait(TICK_SECONDS):
            now, found = time.monotonic(), workers()
            if self.asked:
                send(signal.SIGTERM, found.keys() - self._told)  # they were only just being started
                self._told |= found.keys()
            if self._deadline is not None and now > self._deadline and found:
                say(f"{len(found)} workers did not end in time after a signal: ended by SIGKILL")
                send(signal.SIGKILL, found)
            if found and len(found) == self._expected:
                self._were_complete, self._incomplete_since = True, None
            elif not found:
                self._incomplete_since = None
            elif self._were_complete:
                self._incomplete_since = self._incomplete_since or now
                if now - self._incomplete_since > FROZEN_SECONDS:
                    self._end_frozen(found)

    def _end_frozen(self, found: dict[int, str]) -> None:
        frozen = [process for process, state in found.items() if state == "T"]
        if frozen:
            say(f"worker process {frozen[0]} is frozen and another one has ended: ended by SIGKILL")
            send(signal.SIGKILL, frozen)


def say(text: str) -> None:
    """A line for people."""
    print(f"pfc launch: {text}", file=sys.stderr, flush=True)
