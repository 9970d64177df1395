"""Whether a rank is well, as /healthz says it to whoever keeps it running."""

from dataclasses import dataclass

from trainer.metrics.recent import RecentSteps
from trainer.pulse import BEFORE_TRAINING, FIRST_STEP, LEAVING, LEFT, STEP, Pulse

SHORTEST_LIMIT = 10.0  # seconds: a pause of a few quick steps is nothing


@dataclass(frozen=True)
class Verdict:
    """is_ready: training goes on as it should. text: one line that says why, or why not."""

    is_ready: bool
    text: str


class Health:
    """Ready once steps are taken; not while the run starts, nor when no step came for ``factor`` times the median.

    What is done between steps (evaluation, checkpoints) may take ``pause_seconds``.
    """

    def __init__(self, pulse: Pulse, recent: RecentSteps, *, factor: float, pause_seconds: float) -> None:
        self._pulse = pulse
        self._recent = recent
        self._factor = factor
        self._pause_seconds = pause_seconds

    def judge(self) -> Verdict:
        """Now; any thread may ask."""
        standing = self._pulse.standing
        if self._pulse.fails:
            return Verdict(False, f"failing, in {standing}")
        if standing.phase in (LEAVING, LEFT):
            return Verdict(True, "the run has ended")
        if not self._recent.count:
            what = "no step taken yet" if standing.phase not in BEFORE_TRAINING else "starting"
            return Verdict(False, f"{what}: {standing}")
        idle, median = self._recent.idle_seconds, self._recent.median_seconds
        limit = max(self._factor * median, SHORTEST_LIMIT)
        if standing.phase not in (STEP, FIRST_STEP):
            limit = max(limit, self._pause_seconds)
        if idle > limit:
            limits = f"{self._factor:g} times the median of {median:.3g} s"
            return Verdict(False, f"no step for {idle:.0f} s, more than {limits}: in {standing}")
        return Verdict(True, f"step {self._recent.last_step}, {median:.3g} s a step")
