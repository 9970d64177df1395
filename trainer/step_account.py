"""All that is told of a step: to Prometheus, metrics.jsonl, the log, the terminal and the comparison of ranks."""

import time
from typing import Any

from trainer.checkpoint import Passed
from trainer.metrics.recent import RecentSteps
from trainer.metrics_so_far import JOURNAL, TOTALS, RunTotals
from trainer.non_finite import what_is_wrong
from trainer.own_time import OwnTime
from trainer.reporting import Reporting
from trainer.skipped_images import SkippedImages
from trainer.step import StepResult
from trainer.stragglers import Stragglers


class StepAccount:
    """Told of every step of a run; all ranks call it together.

    log_every: steps from line to line of metrics.jsonl. totals: what the run has counted before. passed: its steps
    that were not taken. recent: steps that the exporter's figures are taken from.
    """

    def __init__(
        self,
        reporting: Reporting,
        *,
        log_every: int,
        total_steps: int,
        steps_per_epoch: int,
        totals: RunTotals,
        passed: Passed,
        skipped_images: SkippedImages,
        own_time: OwnTime,
        stragglers: Stragglers,
        recent: RecentSteps,
    ) -> None:
        self._to = reporting
        self._log_every = log_every
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._totals = totals
        self._passed = passed
        self._skipped_images = skipped_images
        self._own_time = own_time
        self._stragglers = stragglers
        self._recent = recent
        self._journal_waits = False

    def is_told(self, step: int) -> bool:
        """Whether a line of metrics.jsonl ends with this step."""
        return step % self._log_every == 0 or step == self._total_steps

    def state(self) -> dict[str, Any]:
        """What a run that goes on from here goes on counting."""
        return {TOTALS: self._totals.state(), JOURNAL: self._to.journal.state()}

    def step_taken(
        self,
        result: StepResult,
        *,
        step: int,
        samples: int,
        local_batch: int,
        global_batch: int,
        learning_rate: float,
        step_seconds: float,
        phase_seconds: dict[str, float],
    ) -> None:
        """Step number ``step`` is done. samples: all that the run has seen; local_batch: images of this rank."""
        self._stragglers.add(step, own_seconds=self._own_time.take(), step_seconds=step_seconds)
        to = self._to
        epoch = step / self._steps_per_epoch
        to.metrics.record_step(
            step=step,
            epoch=epoch,
            local_samples=local_batch,
            stats=result.stats,
            learning_rate=learning_rate,
            step_seconds=step_seconds,
            phase_seconds=phase_seconds,
            outcome=result.outcome,
        )
        if result.angles is not None:
            to.metrics.record_angles(result.angles)
        self._recent.add(
            step,
            seconds=step_seconds,
            data_seconds=phase_seconds["data"],
            head_seconds=phase_seconds["head"],
            samples=local_batch,
        )
        self._skipped_images.update()
        self._totals.add_step(local_samples=local_batch, seconds=step_seconds, mode=result.stats.mode)
        self._totals.skipped_records = self._skipped_images.counts
        to.metrics.record_totals(self._totals)
        to.journal.add(
            result.stats,
            samples=global_batch,
            step_seconds=step_seconds,
            phase_seconds=phase_seconds,
            outcome=result.outcome,
        )
        if not result.outcome.applied:
            self._tell_of_a_step_passed_over(step, result)
        if self.is_told(step):
            line = to.journal.write(
                time=time.time(),
                step=step,
                epoch=epoch,
                samples=samples,
                learning_rate=learning_rate,
                skipped_records=self._skipped_images.counts,
                passed=self._passed,
                angles=result.angles,
            )
            self._tell_of_journal()
            to.log.info("step", **{key: value for key, value in line.items() if key != "time"})
            to.progress.figures(line)
            to.writers.write_line(line)
        to.progress.step()

    def _tell_of_a_step_passed_over(self, step: int, result: StepResult) -> None:
        to, passed = self._to, self._passed
        if result.outcome.overflow:
            to.log.info("float16 overflow", step=step, loss_scale=result.outcome.loss_scale)
            return
        reason = what_is_wrong(result.stats)
        to.log.warning("step not finite", step=step, reason=reason, in_a_row=passed.in_a_row)
        if passed.in_a_row == 1:
            to.progress.say(f"step {step}: {reason}; passed over")

    def _tell_of_journal(self) -> None:
        """Say once that lines wait for room on the disk, and once that they are written."""
        problem = self._to.journal.problem
        if problem is not None and not self._journal_waits:
            self._to.warn("lines of metrics.jsonl wait in memory", problem)
        self._journal_waits = problem is not None
