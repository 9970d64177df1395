"""Seconds of a step by phase, from an injected clock."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

PHASES = ("data", "forward", "head", "backward", "optimizer", "other")


class PhaseClock:
    """Times the named parts of a step by the host's clock; what is not inside a part counts as "other".

    ``now`` gives seconds. On a GPU the host runs ahead of the device and waits where a value is read back (the
    head's statistics): phases there say where the host waited, while the sum of a step is still right. ``entered``
    is told the name of each part that begins.
    """

    def __init__(self, now: Callable[[], float], entered: Callable[[str], None] = lambda name: None) -> None:
        self._now = now
        self._entered = entered
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._step_began = now()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the block's duration to phase ``name``."""
        self._entered(name)
        began = self._now()
        try:
            yield
        finally:
            self._seconds[name] += self._now() - began

    def finish_step(self) -> tuple[float, dict[str, float]]:
        """``(step seconds, seconds by phase)`` since the last call; starts the next step."""
        now = self._now()
        total, self._step_began = now - self._step_began, now
        seconds, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        seconds["other"] = max(0.0, total - sum(seconds.values()))
        return total, seconds

    def restart(self) -> None:
        """Forget the time since the last step, spent on evaluation or a checkpoint."""
        self._step_began = self._now()
