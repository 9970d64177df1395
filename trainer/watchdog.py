"""Nobody hangs: two threads beside the training see to it that a rank ends when another one is gone.

The talker exchanges beats and failures with the other ranks through a connection of its own to the store. Rank 0
follows all ranks, the others follow rank 0, so the store answers a few calls per rank and second at any world size.
The guard looks at the clock alone, because the talker hangs too where the link to the store is lost. Both work while
the training's thread is stuck inside a collective; where it stays stuck, the guard ends the process.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.attendance import Attendance, Beat
from trainer.bulletin import Bulletin
from trainer.complaint import complain
from trainer.errors import ExitCode, PeerFailedError
from trainer.failure import Failure, exit_code, first_line, is_of_others, reason
from trainer.failure_config import FailureConfig
from trainer.pulse import JOINING, LEAVING, LEFT, STARTING, Pulse

BEAT_SECONDS = 1.0  # at most
BEATS_PER_SILENCE = 5
HURRIED_BEAT_SECONDS = 0.2  # while it is not clear yet who failed, and until all have heard
TICK_SECONDS = 0.1
DOUBT_SECONDS = 3.0  # of silence are enough where a connection to some rank broke
TELLING_SECONDS = 3.0  # a rank that knows of a failure stays so long, so that all others can hear of it
UNWINDING_SECONDS = 40.0  # then a rank on its way out has ended what it was writing, or is ended
SAYING_SECONDS = 2.0  # the last line may block: a frozen terminal, a full pipe


class Watchdog:
    """Of one rank. connect: to the others, None in a world of one. end: leaves the process with an exit code."""

    def __init__(
        self,
        connect: Callable[[], Bulletin] | None,
        *,
        rank: int,
        world_size: int,
        limits: FailureConfig,
        pulse: Pulse,
        end: Callable[[int], None] = os._exit,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._bulletin: Bulletin | None = None
        self._rank = rank
        self._world_size = world_size
        self._limits = limits
        self._pulse = pulse
        self._end = end
        self._now = now
        self._attendance = Attendance(limits)
        self._beat_seconds = min(BEAT_SECONDS, limits.silence_seconds / BEATS_PER_SILENCE)
        self._awake = 0.0
        self._contact = 0.0
        self._beats = 0
        self._doubted_since: float | None = None
        self._doubted: BaseException | None = None
        self._to_tell: Failure | None = None
        self._telling_since = 0.0
        self._failure: Failure | None = None
        self._known_since = 0.0
        self._closed = threading.Event()
        self._hurry = threading.Event()
        self._known = threading.Event()
        self._all_know = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._talk, name="pfc-talker", daemon=True),
            threading.Thread(target=self._guard, name="pfc-guard", daemon=True),
        ]

    # What the training's thread calls.

    def start(self) -> None:
        """Begin to watch and to be watched."""
        self._pulse.on_phase = self._hurry.set
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Say goodbye; the others do not miss this rank any more."""
        self._pulse.enter(LEFT)
        self._closed.set()
        self._hurry.set()
        for thread in self._threads:
            thread.join(timeout=DOUBT_SECONDS)

    def explain(self, error: BaseException) -> BaseException:
        """What to raise instead of ``error``: the failure that it comes from, where that is another rank's.

        An error of this rank is told to the others. Returns when all have heard, or after some seconds.
        """
        if self._connect is None or (isinstance(error, PeerFailedError) and error.code is not None):
            return error
        others = is_of_others(error)
        if not others:
            name = self._attendance.name(self._rank)
            self.tell(Failure(f"{name} failed, in {self._pulse.standing}: {reason(error)}", exit_code(error)))
        else:
            self._doubted = error
            self._doubted_since = self._awake
        self._hurry.set()
        self._known.wait(self._limits.silence_seconds + DOUBT_SECONDS)
        self._pulse.fail()
        self._all_know.wait(TELLING_SECONDS)
        failure = self._failure
        return error if failure is None or not others else failure.as_error()

    def tell(self, failure: Failure) -> None:
        """Let all ranks know, as soon as the store can be reached."""
        self._telling_since = self._awake
        self._to_tell = failure
        self._hurry.set()

    def asked_to_stop(self) -> None:
        """A rank asked to stop before all have met cannot agree with the others on a step: nothing is lost, all end.

        To be called from any thread but the watchdog's own.
        """
        if self._pulse.standing.phase in (STARTING, JOINING):
            name = self._attendance.name(self._rank)
            failure = Failure(f"{name} was asked to stop before the run began: nothing is lost", ExitCode.STOPPED)
            self.tell(failure)

    def name_of(self, rank: int) -> str:
        """With host and process, as far as they are known; rank 0 knows them all."""
        return self._attendance.name(rank)

    # The talker.

    def _talk(self) -> None:
        try:
            if self._connect is not None:
                self._bulletin = self._connect()
            while not self._closed.is_set():
                self._exchange()
                hurried = self._doubted_since is not None or self._failure is not None
                self._hurry.wait(HURRIED_BEAT_SECONDS if hurried else self._beat_seconds)
                self._hurry.clear()
            if self._failure is None:
                self._beat()
        except Exception as error:
            # Where all are leaving, the one that keeps the store may be the first to be gone.
            if not self._closed.is_set() and self._pulse.standing.phase != LEAVING:
                where = "rank 0 or the launcher of the first node"
                what = f"does not answer: is {where} there?" if self._bulletin is None else f"is gone, with {where}"
                self._learn(Failure(f"the store where the ranks meet {what} ({first_line(error)})"))
            self._all_know.set()

    def _exchange(self) -> None:
        self._beat()
        if self._bulletin is not None:
            self._follow(self._bulletin)
            failure = self._bulletin.failure()
            if failure is None:
                news = self._to_tell or self._judge()
                failure = self._bulletin.tell(news) if news else None
            if failure is not None and self._learn(failure):
                self._bulletin.acknowledge()
            if self._failure is not None and self._bulletin.all_have_heard(self._failure):
                self._all_know.set()
            self._contact = self._awake
        else:
            verdict = self._to_tell or self._judge()
            if verdict is not None:
                self._learn(verdict)

    def _beat(self) -> None:
        self._beats += 1
        beat = Beat(self._beats, self._pulse.changes, self._pulse.standing, socket.gethostname(), os.getpid())
        self._attendance.hear(self._rank, beat, self._awake)
        if self._bulletin is not None:
            self._bulletin.beat(beat)

    def _follow(self, bulletin: Bulletin) -> None:
        everybody = self._rank == 0 or self._doubted_since is not None
        self._attendance.follow(range(self._world_size) if everybody else {0, self._rank}, self._awake)
        come = [rank for rank in self._attendance.expected if bulletin.has_come(rank)]
        for rank, beat in bulletin.beats({*self._attendance.present, *come} - {self._rank}).items():
            self._attendance.hear(rank, beat, self._awake)

    def _judge(self) -> Failure | None:
        verdict = self._attendance.judge(self._awake, of_all=self._rank == 0)
        if verdict is not None or self._doubted_since is None:
            return verdict
        verdict = self._attendance.ended(_has_ended_here) or self._attendance.lost(self._awake, DOUBT_SECONDS)
        if verdict is None and self._awake - self._doubted_since > DOUBT_SECONDS + 2 * HURRIED_BEAT_SECONDS:
            assert self._doubted is not None, "set together"
            behind = self._attendance.behind() or "no rank is behind the others,"
            verdict = Failure(f"{behind} all ranks live, but do not reach each other: {first_line(self._doubted)}")
        return verdict

    def _learn(self, failure: Failure) -> bool:
        """Keep the first failure that this rank hears of; whether it was."""
        with self._lock:
            if self._failure is not None:
                return False
            self._failure = failure
            self._known_since = self._awake
        self._known.set()
        return True

    # The guard.

    def _guard(self) -> None:
        last = self._now()
        left_since: float | None = None
        while not self._closed.wait(TICK_SECONDS):
            now = self._now()
            # Time that this process itself was frozen says nothing about the others.
            self._awake += min(now - last, 10 * TICK_SECONDS)
            last = now
            if self._failure is not None:
                waited = self._awake - self._known_since
                if waited > (UNWINDING_SECONDS if self._pulse.fails else TELLING_SECONDS):
                    self._leave(self._failure)
                continue
            if self._to_tell is not None and self._awake - self._telling_since > TELLING_SECONDS:
                self._learn(self._to_tell)  # as it seems, nobody can be told
            if self._bulletin is not None and self._awake - self._contact > self._patience():
                self._learn(
                    Failure(
                        f"no answer from the store where the ranks meet for {self._awake - self._contact:.0f} s: "
                        "this machine's link, or the first node, is lost"
                    )
                )
                self._all_know.set()
            if self._pulse.standing.phase == LEAVING:
                left_since = self._awake if left_since is None else left_since
                # A silent rank is told of by name before that.
                if self._awake - left_since > self._limits.silence_seconds + DOUBT_SECONDS:
                    self._learn(Failure("the ranks did not all come to the end together; the last checkpoint is whole"))

    def _patience(self) -> float:
        joining = self._pulse.standing.phase in (STARTING, JOINING)
        return max(self._limits.silence_seconds, self._limits.join_seconds if joining else 0.0)

    def _leave(self, failure: Failure) -> None:
        """Say why and end the process; the training's thread cannot."""
        threading.Timer(SAYING_SECONDS, self._end, [int(failure.code)]).start()
        with suppress(OSError, ValueError):
            complain(f"{failure.text}; this rank stood in {self._pulse.standing}{failure.advice}", failure.code)
        self._end(int(failure.code))


def _has_ended_here(beat: Beat) -> bool:
    """Whether the process is one of this machine's, and is there no more."""
    if beat.host != socket.gethostname() or not Path("/proc/self/stat").exists():
        return False
    try:
        state = Path(f"/proc/{beat.process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


@contextmanager
def watched(watchdog: Watchdog) -> Iterator[Watchdog]:
    """Watch during the block; errors leave it explained."""
    watchdog.start()
    try:
        with explained(watchdog):
            yield watchdog
    finally:
        watchdog.close()


@contextmanager
def explained(watchdog: Watchdog) -> Iterator[None]:
    """Raise what an error comes from, see :meth:`Watchdog.explain`; to be used where the others can still be told."""
    try:
        yield
    except Exception as error:
        explanation = watchdog.explain(error)
        if explanation is error:
            raise
        raise explanation from error
