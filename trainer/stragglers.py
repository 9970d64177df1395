"""Which rank makes the others wait: own times of all ranks compared every few steps."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from prometheus_client import CollectorRegistry, Gauge
from structlog.typing import FilteringBoundLogger

from trainer.world import World

EVERY_STEPS = 10  # one all-gather of 8 bytes per rank
LASTING = 3  # comparisons in a row, before a rank is called slow and before it is called well again
MATTERS = 0.05  # of the step: what the slow rank costs, at least


@dataclass(frozen=True)
class Comparison:
    """slowest: a rank. ratio: its own time over the median of the others'. lost_seconds: their difference."""

    slowest: int
    ratio: float
    lost_seconds: float


def compare(own_seconds: Sequence[float]) -> Comparison:
    """Own times in rank order, of two ranks or more."""
    slowest = max(range(len(own_seconds)), key=own_seconds.__getitem__)
    others = statistics.median([*own_seconds[:slowest], *own_seconds[slowest + 1 :]])
    return Comparison(slowest, own_seconds[slowest] / max(others, 1e-9), own_seconds[slowest] - others)


class SlowRank:
    """Calls a rank slow after it was so several times in a row, and well only when it is clearly so again.

    limit: the ratio from which on a rank is slow; it is well below the middle between that and 1.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._candidate: int | None = None
        self._in_a_row = 0
        self.called: int | None = None

    def judge(self, found: Comparison, step_seconds: float) -> str | None:
        """Take one comparison in: "slow" when a rank has become so, "well" when none is any more, else None."""
        matters = found.lost_seconds > MATTERS * step_seconds
        slow = found.slowest if found.ratio > self._limit and matters else None
        if self.called is None:
            self._in_a_row = 0 if slow is None else self._in_a_row + 1 if slow == self._candidate else 1
            self._candidate = slow
            if self._in_a_row < LASTING:
                return None
            self.called, self._in_a_row = slow, 0
            return "slow"
        well = found.slowest != self.called or found.ratio < (1 + self._limit) / 2 or not matters
        self._in_a_row = self._in_a_row + 1 if well else 0
        if self._in_a_row < LASTING:
            return None
        self.called, self._candidate, self._in_a_row = None, None, 0
        return "well"


class Stragglers:
    """Compares the ranks of a run; every rank exports and logs what was found. say: a line for people."""

    def __init__(
        self,
        world: World,
        *,
        limit: float,
        registry: CollectorRegistry,
        log: FilteringBoundLogger,
        say: Callable[[str], None],
        name: Callable[[int], str],
    ) -> None:
        self._world = world
        self._log = log
        self._say = say
        self._name = name
        self._slow = SlowRank(limit)
        self._own: list[float] = []
        self._step_seconds: list[float] = []
        self._ratio = Gauge(
            "pfc_straggler_ratio",
            "Own time of the slowest rank over the median of the others (1: all alike).",
            registry=registry,
        )
        self._slowest = Gauge("pfc_slowest_rank", "Rank with the largest own time of a step.", registry=registry)
        self._own_time = Gauge(
            "pfc_own_step_seconds",
            "Time of a step before this rank needs the others: data, forward.",
            registry=registry,
        )
        self._ratio.set(1)

    def add(self, step: int, *, own_seconds: float, step_seconds: float) -> None:
        """One step of this rank; every ``EVERY_STEPS``-th one is a meeting of all ranks."""
        self._own.append(own_seconds)
        self._step_seconds.append(step_seconds)
        if step % EVERY_STEPS:
            return
        own, step_time = statistics.median(self._own), statistics.median(self._step_seconds)
        self._own, self._step_seconds = [], []
        self._own_time.set(own)
        if self._world.world_size > 1:
            self._tell(step, compare(self._of_all(own)), step_time)

    def _of_all(self, own: float) -> list[float]:
        # On the CPU, through gloo: no device is synchronised.
        gathered = torch.empty(self._world.world_size, dtype=torch.float64)
        dist.all_gather_single(gathered, torch.tensor([own], dtype=torch.float64))
        times: list[float] = gathered.tolist()
        return times

    def _tell(self, step: int, found: Comparison, step_seconds: float) -> None:
        self._ratio.set(found.ratio)
        self._slowest.set(found.slowest)
        news = self._slow.judge(found, step_seconds)
        if news == "slow":
            self._log.warning("slow rank", step=step, slow_rank=found.slowest, ratio=found.ratio)
            self._say(
                f"warning: {self._name(found.slowest)} is slow: {found.ratio:.1f} times the median of the others, "
                f"which costs all {1000 * found.lost_seconds:.0f} ms of every step of {1000 * step_seconds:.0f} ms"
            )
        elif news == "well":
            self._log.info("no slow rank any more", step=step)
            self._say("no rank is slow any more")
