"""The training loop: steps, and what happens between them — journal, metrics, evaluation, checkpoints, stopping."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from data_pipeline import Batch
from data_pipeline.loader import Loader
from trainer.agreement import any_rank
from trainer.checkpoint import Position, Trained, load_newest, save_checkpoint
from trainer.config import Config
from trainer.engine import Engine
from trainer.errors import ExitCode
from trainer.journal import Journal
from trainer.metrics import TrainingMetrics
from trainer.non_finite import NonFiniteGuard, what_is_wrong
from trainer.phases import PhaseClock
from trainer.progress import Progress
from trainer.run_verification import RunVerification
from trainer.skipped_images import SkippedImages
from trainer.step import StepResult, TrainStep
from trainer.stopping import StopRequest
from trainer.world import World


@dataclass(frozen=True)
class Reporting:
    """Where a run tells how it goes."""

    journal: Journal
    metrics: TrainingMetrics
    progress: Progress
    log: FilteringBoundLogger


@dataclass(frozen=True)
class Plan:
    """How long a run is and how its learning rate goes."""

    total_steps: int
    steps_per_epoch: int
    learning_rate: Callable[[int], float]


class TrainingLoop:
    """Runs from a position to the end, or to a request to stop."""

    def __init__(
        self,
        *,
        config: Config,
        world: World,
        run_folder: Path,
        plan: Plan,
        loader: Loader,
        trained: Trained,
        engine: Engine,
        train_step: TrainStep,
        clock: PhaseClock,
        verification: RunVerification,
        reporting: Reporting,
        skipped_images: SkippedImages,
        stop: StopRequest,
        position: Position,
    ) -> None:
        self._config = config
        self._world = world
        self._run_folder = run_folder
        self._plan = plan
        self._loader = loader
        self._trained = trained
        self._engine = engine
        self._train_step = train_step
        self._guard = NonFiniteGuard(config.failure, trained.passed)
        self._clock = clock
        self._verification = verification
        self._reporting = reporting
        self._skipped_images = skipped_images
        self._stop = stop
        self._step = position.step
        self._samples = position.samples
        self._saved_step = position.step if position.step else None

    def run(self) -> ExitCode:
        """DONE when the last step is taken and saved, STOPPED when asked to stop earlier and saved."""
        if self._step == 0 and self._config.evaluation.at_start:
            self._verify()
        while self._step < self._plan.total_steps:
            batches = iter(self._loader)
            while self._step < self._plan.total_steps:
                with self._clock.phase("data"):
                    batch = next(batches, None)
                if batch is None:
                    break
                self._take_step(batch)
                if any_rank(self._world, self._stop.asked):
                    return self._stop_here()
                self._between_steps()
        return self._finish()

    def _take_step(self, batch: Batch) -> None:
        learning_rate = self._plan.learning_rate(self._step)
        result = self._train_step(batch, learning_rate, global_batch=self._loader.last_global_batch)
        self._step += 1
        self._samples += self._loader.last_global_batch
        step_seconds, phase_seconds = self._clock.finish_step()
        goes_back = self._guard.judge(result)
        self._account(batch, result, learning_rate, step_seconds, phase_seconds)
        if goes_back:
            self._go_back()

    def _account(
        self,
        batch: Batch,
        result: StepResult,
        learning_rate: float,
        step_seconds: float,
        phase_seconds: dict[str, float],
    ) -> None:
        to = self._reporting
        epoch = self._step / self._plan.steps_per_epoch
        to.metrics.record_step(
            step=self._step,
            epoch=epoch,
            local_samples=len(batch.identities),
            stats=result.stats,
            learning_rate=learning_rate,
            step_seconds=step_seconds,
            phase_seconds=phase_seconds,
            outcome=result.outcome,
        )
        self._skipped_images.update()
        to.journal.add(
            result.stats,
            samples=self._loader.last_global_batch,
            step_seconds=step_seconds,
            phase_seconds=phase_seconds,
            outcome=result.outcome,
        )
        if not result.outcome.applied:
            self._tell_of_a_step_passed_over(result)
        if self._step % self._config.log.every_steps == 0 or self._step == self._plan.total_steps:
            line = to.journal.write(
                time=time.time(),
                step=self._step,
                epoch=epoch,
                samples=self._samples,
                learning_rate=learning_rate,
                skipped_records=self._skipped_images.counts,
                passed=self._trained.passed,
            )
            to.log.info("step", **{key: value for key, value in line.items() if key != "time"})
            to.progress.figures(line)
        to.progress.step()

    def _tell_of_a_step_passed_over(self, result: StepResult) -> None:
        to, passed = self._reporting, self._trained.passed
        if result.outcome.overflow:
            to.log.info("float16 overflow", step=self._step, loss_scale=result.outcome.loss_scale)
            return
        reason = what_is_wrong(result.stats)
        to.log.warning("step not finite", step=self._step, reason=reason, in_a_row=passed.in_a_row)
        if passed.in_a_row == 1:
            to.progress.say(f"step {self._step}: {reason}; passed over")

    def _go_back(self) -> None:
        """Take weights, centers, optimizer state and random numbers of a checkpoint; everything else goes on."""
        counts = replace(self._trained.passed)
        position, damages = load_newest(
            self._run_folder,
            self._trained,
            world=self._world,
            seed=self._config.run.seed,
            before=self._guard.only_before(self._step),
        )
        self._trained.passed.take(counts)
        for damage in damages:
            self._reporting.log.warning("damaged checkpoint", reason=damage)
        self._guard.went_back(None if position is None else position.step)
        assert position is not None, "went_back raises without"
        self._reporting.metrics.rollbacks.inc()
        self._reporting.log.warning("rolled back", step=self._step, to_step=position.step)
        self._reporting.progress.say(
            f"step {self._step}: back to the weights of step {position.step}; going on with the images that follow"
        )
        self._clock.restart()

    def _between_steps(self) -> None:
        if self._step == self._plan.total_steps:
            return
        if self._due(self._config.evaluation.every_steps):
            self._verify()
        # A checkpoint amid steps that are not finite might hold the weights that cause it.
        if self._due(self._config.checkpoint.every_steps) and not self._guard.in_doubt:
            self._save()

    def _due(self, every_steps: int) -> bool:
        return every_steps > 0 and self._step % every_steps == 0

    def _verify(self) -> None:
        for result in self._verification.run(self._engine.to_evaluate(), self._step):
            self._reporting.metrics.accuracy.labels(result.name).set(result.accuracy_mean)
            self._reporting.log.info(
                "verification", step=self._step, pairs=result.name, accuracy=result.accuracy_mean, auc=result.auc
            )
            self._reporting.progress.say(
                f"step {self._step}: {result.name} accuracy {100 * result.accuracy_mean:.2f}% "
                f"± {100 * result.accuracy_std:.2f}"
            )
        self._clock.restart()

    def _save(self) -> None:
        began = time.perf_counter()
        self._guard.saving()
        folder = save_checkpoint(
            self._run_folder,
            self._trained,
            Position(self._step, self._samples, self._loader.state_dict()),
            config=self._config,
            world=self._world,
            keep=self._config.checkpoint.keep,
        )
        seconds = time.perf_counter() - began
        self._saved_step = self._step
        self._reporting.metrics.checkpoint_seconds.observe(seconds)
        self._reporting.metrics.last_checkpoint_step.set(self._step)
        self._reporting.log.info("checkpoint", step=self._step, folder=str(folder), seconds=seconds)
        self._clock.restart()

    def _stop_here(self) -> ExitCode:
        if self._step == self._plan.total_steps:
            return self._finish()
        self._save()
        self._reporting.log.info("stopped", step=self._step, signal=self._stop.signal_name)
        self._reporting.progress.say(
            f"stopped on request at step {self._step} of {self._plan.total_steps}, checkpoint written: "
            "run the same command again to continue"
        )
        return ExitCode.STOPPED

    def _finish(self) -> ExitCode:
        if self._saved_step != self._plan.total_steps:
            self._save()
        if not self._verification.has_results(self._step):
            self._verify()
        self._reporting.log.info("finished", step=self._step, samples=self._samples)
        return ExitCode.DONE
