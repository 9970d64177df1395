"""The training loop: steps, and what happens between them — journal, metrics, evaluation, checkpoints, stopping."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from data_pipeline import Batch
from data_pipeline.loader import Loader
from partial_fc import HeadStats
from trainer.agreement import any_rank
from trainer.checkpoint import Position, Trained, save_checkpoint
from trainer.config import Config
from trainer.errors import ExitCode
from trainer.journal import Journal
from trainer.metrics import TrainingMetrics
from trainer.own_time import OwnTime
from trainer.phases import PhaseClock
from trainer.progress import Progress
from trainer.pulse import EVALUATING, FIRST_STEP, SAVING, STEP, Pulse
from trainer.run_verification import RunVerification
from trainer.skipped_images import SkippedImages
from trainer.step import TrainStep
from trainer.stopping import StopRequest
from trainer.stragglers import Stragglers
from trainer.world import World


@dataclass(frozen=True)
class Reporting:
    """Where a run tells how it goes."""

    journal: Journal
    metrics: TrainingMetrics
    progress: Progress
    log: FilteringBoundLogger


@dataclass(frozen=True)
class Watching:
    """What the watchdog and the comparison of ranks need to be told."""

    pulse: Pulse
    own_time: OwnTime
    stragglers: Stragglers


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
        train_step: TrainStep,
        clock: PhaseClock,
        verification: RunVerification,
        reporting: Reporting,
        skipped_images: SkippedImages,
        watching: Watching,
        stop: StopRequest,
        position: Position,
    ) -> None:
        self._config = config
        self._world = world
        self._run_folder = run_folder
        self._plan = plan
        self._loader = loader
        self._trained = trained
        self._train_step = train_step
        self._clock = clock
        self._verification = verification
        self._reporting = reporting
        self._skipped_images = skipped_images
        self._watching = watching
        self._stop = stop
        self._step = position.step
        self._samples = position.samples
        self._saved_step = position.step if position.step else None
        self._step_phase = FIRST_STEP

    def run(self) -> ExitCode:
        """DONE when the last step is taken and saved, STOPPED when asked to stop earlier and saved."""
        if self._step == 0 and self._config.evaluation.at_start:
            self._verify()
            if self._stop_is_agreed():
                return self._stop_here()
        while self._step < self._plan.total_steps:
            batches = iter(self._loader)
            while self._step < self._plan.total_steps:
                self._watching.pulse.enter(self._step_phase, self._step + 1)
                with self._clock.phase("data"):
                    batch = next(batches, None)
                if batch is None:
                    break
                self._take_step(batch)
                if self._stop_is_agreed() or (self._between_steps() and self._stop_is_agreed()):
                    return self._stop_here()
        return self._finish()

    def _stop_is_agreed(self) -> bool:
        self._watching.pulse.enter_part("agreement")
        return any_rank(self._world, self._stop.asked)

    def _take_step(self, batch: Batch) -> None:
        learning_rate = self._plan.learning_rate(self._step)
        stats = self._train_step(batch, learning_rate)
        self._step += 1
        self._samples += self._loader.last_global_batch
        self._step_phase = STEP
        step_seconds, phase_seconds = self._clock.finish_step()
        self._watching.stragglers.add(self._step, own_seconds=self._watching.own_time.take(), step_seconds=step_seconds)
        self._account(batch, stats, learning_rate, step_seconds, phase_seconds)

    def _account(
        self,
        batch: Batch,
        stats: HeadStats,
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
            stats=stats,
            learning_rate=learning_rate,
            step_seconds=step_seconds,
            phase_seconds=phase_seconds,
        )
        self._skipped_images.update()
        to.journal.add(
            stats, samples=self._loader.last_global_batch, step_seconds=step_seconds, phase_seconds=phase_seconds
        )
        if self._step % self._config.log.every_steps == 0 or self._step == self._plan.total_steps:
            line = to.journal.write(
                time=time.time(),
                step=self._step,
                epoch=epoch,
                samples=self._samples,
                learning_rate=learning_rate,
                skipped_records=self._skipped_images.counts,
            )
            to.log.info("step", **{key: value for key, value in line.items() if key != "time"})
            to.progress.figures(line)
        to.progress.step()

    def _between_steps(self) -> bool:
        """What is due after some steps; whether anything was, which takes long enough to be asked to stop."""
        if self._step == self._plan.total_steps:
            return False
        verify, save = self._due(self._config.evaluation.every_steps), self._due(self._config.checkpoint.every_steps)
        if verify:
            self._verify()
        if save:
            self._save()
        return verify or save

    def _due(self, every_steps: int) -> bool:
        return every_steps > 0 and self._step % every_steps == 0

    def _verify(self) -> None:
        self._watching.pulse.enter(EVALUATING, self._step)
        for result in self._verification.run(self._trained.backbone, self._step, self._stop_is_agreed):
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
        self._watching.pulse.enter(SAVING, self._step)
        began = time.perf_counter()
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
        if self._saved_step != self._step:
            self._save()
        return self._stopped()

    def _stopped(self) -> ExitCode:
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
            if self._stop_is_agreed() and not self._verification.has_results(self._step):
                return self._stopped()
        self._reporting.log.info("finished", step=self._step, samples=self._samples)
        return ExitCode.DONE
