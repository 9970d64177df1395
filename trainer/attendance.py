"""Who has been heard of, and what follows from it: pure bookkeeping, fed with beats and the time.

Times are seconds of the clock of the process that judges. A beat of another rank counts as news when its number has
changed, so the clocks of different machines are never compared.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass

from trainer.failure import Failure
from trainer.failure_config import FailureConfig
from trainer.pulse import BEFORE_TRAINING, LEFT, STEP, Standing

HINT = "killed, frozen, or its machine or link is lost"


@dataclass(frozen=True)
class Beat:
    """A rank's sign of life. count: grows with each. changes: of its standing, so far."""

    count: int
    changes: int
    standing: Standing
    host: str
    process: int

    def to_json(self) -> str:
        """As a rank writes it for the others."""
        return json.dumps([self.count, self.changes, astuple(self.standing), self.host, self.process])

    @staticmethod
    def from_json(content: bytes) -> "Beat":
        """The counterpart."""
        count, changes, standing, host, process = json.loads(content)
        return Beat(count, changes, Standing(*standing), host, process)


class Attendance:
    """Follows some ranks (at first: none) and judges them."""

    def __init__(self, limits: FailureConfig) -> None:
        self._limits = limits
        self._beats: dict[int, Beat] = {}
        self._heard: dict[int, float] = {}
        self._missed_since: dict[int, float] = {}
        self._last_change = 0.0

    def follow(self, ranks: Iterable[int], now: float) -> None:
        """Expect beats of these ranks from now on and of no others."""
        wanted = set(ranks)
        for rank in wanted - self._heard.keys() - self._missed_since.keys():
            self._missed_since[rank] = now
        for times in (self._heard, self._missed_since):
            for rank in times.keys() - wanted:
                del times[rank]

    @property
    def expected(self) -> list[int]:
        """Followed ranks that have not been heard of yet."""
        return sorted(self._missed_since)

    @property
    def present(self) -> list[int]:
        """Followed ranks that have."""
        return sorted(self._heard)

    def hear(self, rank: int, beat: Beat, now: float) -> None:
        """Take in the newest beat of a followed rank, be it new or not."""
        before = self._beats.get(rank)
        if before is None or rank in self._missed_since or before.count != beat.count:
            self._heard[rank] = now
            self._missed_since.pop(rank, None)
        if before is None or before.changes != beat.changes:
            self._last_change = now
        self._beats[rank] = beat

    def name(self, rank: int) -> str:
        """``rank 3 (host, process 4711)``."""
        beat = self._beats.get(rank)
        return f"rank {rank}" + (f" ({beat.host}, process {beat.process})" if beat else "")

    def judge(self, now: float, *, of_all: bool) -> Failure | None:
        """What is wrong, None while nothing is. of_all: whether all ranks are followed: else one may get on unseen."""
        return self._missing(now) or self.lost(now) or (self._stuck(now) if of_all else None)

    def _missing(self, now: float) -> Failure | None:
        limit = self._limits.join_seconds
        missing = [rank for rank, since in sorted(self._missed_since.items()) if now - since > limit]
        if not missing:
            return None
        text = f"{self._names(missing)} did not come within {limit:g} s: see what its launcher says"
        return Failure(text, absent=len(missing))

    def ended(self, has_ended: Callable[[Beat], bool]) -> Failure | None:
        """Ranks whose process is there no more, as ``has_ended`` tells; to be asked when something is wrong."""
        beats = {rank: self._beats[rank] for rank in self._heard}
        gone = [rank for rank, beat in sorted(beats.items()) if beat.standing.phase != LEFT and has_ended(beat)]
        if not gone:
            return None
        text = f"{self._names(gone)} ended without a word, last seen in {beats[gone[0]].standing}: killed or crashed"
        return Failure(text, absent=len(gone))

    def lost(self, now: float, limit: float | None = None) -> Failure | None:
        """Ranks that have been silent for longer than they may, or than ``limit``."""
        silent = []
        for rank, heard in sorted(self._heard.items()):
            standing = self._beats[rank].standing
            # While a run starts, whole libraries are loaded from disks that may be slow.
            starting = standing.phase in BEFORE_TRAINING
            patience = max(self._limits.silence_seconds, self._limits.join_seconds if starting else 0.0)
            if standing.phase != LEFT and now - heard > (patience if limit is None else limit):
                silent.append(rank)
        if not silent:
            return None
        seconds = now - self._heard[silent[0]]
        where = self._beats[silent[0]].standing
        text = f"{self._names(silent)} has been silent for {seconds:.0f} s, last seen in {where}: {HINT}"
        return Failure(text, absent=len(silent))

    def _stuck(self, now: float) -> Failure | None:
        stalled = now - self._last_change
        beats = {rank: self._beats[rank] for rank in self._heard}
        if stalled <= self._limits.stall_seconds or any(beat.standing.phase != STEP for beat in beats.values()):
            return None
        return Failure(f"{self.behind() or 'all ranks together'} got no further for {stalled:.0f} s")

    def behind(self) -> str:
        """Which rank the others wait for, and where it stands; "" when all stand at the same place."""
        progress = {rank: self._beats[rank].standing.progress for rank in self._heard}
        if len(set(progress.values())) < 2:
            return ""
        last = min(progress.values())
        ranks = [rank for rank, place in sorted(progress.items()) if place == last]
        return f"{self._names(ranks)}, in {self._beats[ranks[0]].standing},"

    def _names(self, ranks: list[int]) -> str:
        others = f" and {len(ranks) - 1} more" if len(ranks) > 1 else ""
        return self.name(ranks[0]) + others
