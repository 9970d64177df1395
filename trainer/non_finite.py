"""Steps whose loss or gradient is NaN or infinite: passed over, then a way back, then the end, as configured.

Such a step changes nothing on any rank (see :class:`trainer.step.TrainStep`) and still counts as a step of the run:
its images are left behind and the learning rate goes on. After ``max_skipped_in_a_row`` of them the weights themselves
are taken for spoiled. The run then goes back to the weights, centers, optimizer state and random numbers of its newest
whole checkpoint from before the first of these steps, and on with the images that follow: step number, learning rate
and place in the data stay where they are, so what was learned since that checkpoint is lost, and nothing that spoiled
it comes again in this epoch. Where not even one step goes well after that, the next way back is to the checkpoint
before.
"""

import math

from partial_fc import HeadStats
from trainer.checkpoint import Passed
from trainer.failure_config import FailureConfig
from trainer.step import StepResult

ADVICE = "lower optimizer.lr or lengthen schedule.warmup"


class NonFiniteError(RuntimeError):
    """The run has diverged and does not come back; nothing of it was saved."""


class NonFiniteGuard:
    """Counts in ``passed``, which checkpoints hold, and decides; ranks that see the same results decide the same."""

    def __init__(self, config: FailureConfig, passed: Passed) -> None:
        self._config = config
        self._passed = passed
        self._went_back_to: int | None = None
        self._in_a_row = ""  # what is wrong, in words

    @property
    def in_doubt(self) -> bool:
        """Whether no step went well since the last one that was not finite: the weights are not worth a checkpoint."""
        return self._passed.in_a_row > 0 or self._went_back_to is not None

    def judge(self, result: StepResult) -> bool:
        """Take in one step; True where the run has to go back. Raises NonFiniteError where it has to end."""
        passed, config = self._passed, self._config
        if result.outcome.applied:
            passed.in_a_row, self._went_back_to = 0, None
            return False
        if result.outcome.overflow:
            passed.overflow += 1
            return False
        passed.non_finite += 1
        passed.in_a_row += 1
        reason = what_is_wrong(result.stats)
        if config.non_finite == "stop":
            raise NonFiniteError(f"{reason}: {ADVICE}")
        if passed.in_a_row < config.max_skipped_in_a_row:
            return False
        self._in_a_row = f"{reason}, in {passed.in_a_row} steps in a row"
        if config.non_finite == "skip":
            raise NonFiniteError(f"{self._in_a_row}: {ADVICE}")
        if passed.rollbacks >= config.max_rollbacks:
            times = f"{passed.rollbacks} {'time' if passed.rollbacks == 1 else 'times'}"
            raise NonFiniteError(f"{self._in_a_row}, after going back to a checkpoint {times}: {ADVICE}")
        return True

    def only_before(self, step: int) -> int:
        """Checkpoints of this step and later ones are no way back from ``step``."""
        last_good = step - self._passed.in_a_row
        return last_good + 1 if self._went_back_to is None else self._went_back_to

    def went_back(self, step: int | None) -> None:
        """The run has gone back to the checkpoint of ``step``. Raises NonFiniteError where there was none."""
        if step is None:
            kind = "" if self._went_back_to is None else "older "
            raise NonFiniteError(f"{self._in_a_row}, and there is no {kind}checkpoint to go back to: {ADVICE}")
        self._went_back_to = step
        self._passed.in_a_row = 0
        self._passed.rollbacks += 1

    def saving(self) -> None:
        """A checkpoint is about to be written: of a good step it is a new place to go back to."""
        if not self.in_doubt:
            self._passed.rollbacks = 0


def what_is_wrong(stats: HeadStats) -> str:
    """In words, of a step that was not taken."""
    if math.isfinite(stats.loss):
        return "the gradient is not finite"
    return f"the loss is not finite (intra {stats.loss_intra}, inter {stats.loss_inter})"
