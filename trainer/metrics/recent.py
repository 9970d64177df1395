"""The last steps: what a rate or a share of "now" is taken from. Written by the training, read by the exporter."""

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_STEPS = 50


@dataclass(frozen=True)
class _Step:
    ended: float
    seconds: float
    data_seconds: float
    head_seconds: float
    samples: int


class RecentSteps:
    """Of one rank, NaN where there was no step yet. ``now`` gives seconds. last_step: number of the last one."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.last_step = 0
        self._now = now
        self._steps: deque[_Step] = deque(maxlen=WINDOW_STEPS)

    def add(self, step: int, *, seconds: float, data_seconds: float, head_seconds: float, samples: int) -> None:
        """One step has ended; samples: images of this rank."""
        self.last_step = step
        self._steps.append(_Step(self._now(), seconds, data_seconds, head_seconds, samples))

    @property
    def count(self) -> int:
        """Steps that the figures are taken from."""
        return len(self._steps)

    @property
    def images_per_second(self) -> float:
        """Within steps, as in metrics.jsonl."""
        steps = list(self._steps)
        return _quotient(sum(step.samples for step in steps), sum(step.seconds for step in steps))

    @property
    def data_wait_ratio(self) -> float:
        """Share of the steps' time in which they waited for data."""
        steps = list(self._steps)
        return _quotient(sum(step.data_seconds for step in steps), sum(step.seconds for step in steps))

    @property
    def head_seconds(self) -> float:
        """Mean per step."""
        steps = list(self._steps)
        return _quotient(sum(step.head_seconds for step in steps), len(steps))

    @property
    def median_seconds(self) -> float:
        """Of a step."""
        steps = list(self._steps)
        return statistics.median(step.seconds for step in steps) if steps else math.nan

    @property
    def pace_seconds(self) -> float:
        """From step to step on the clock, with everything that happened between them."""
        steps = list(self._steps)
        if len(steps) < 2:
            return steps[0].seconds if steps else math.nan
        return (steps[-1].ended - steps[0].ended) / (len(steps) - 1)

    @property
    def idle_seconds(self) -> float:
        """Since the last step ended."""
        steps = list(self._steps)
        return self._now() - steps[-1].ended if steps else math.nan


def _quotient(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
