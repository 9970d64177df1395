"""The training loop: steps, and what happens between them — journal, metrics, evaluation, checkpoints, stopping."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from data_pipeline import Batch
from trainer.agreement import any_rank_each
from trainer.batch_source import BatchSource
from trainer.checkpoint import Position, Score, Trained
from trainer.config import Config
from trainer.engine import Engine
from trainer.errors import ExitCode
from trainer.non_finite import NonFiniteError, NonFiniteGuard
from trainer.phases import PhaseClock
from trainer.pulse import EVALUATING, FIRST_STEP, LOADING, SAVING, STEP, Pulse
from trainer.reporting import Reporting
from trainer.run_checkpoints import RunCheckpoints
from trainer.run_verification import RunVerification
from trainer.step import TrainStep
from trainer.step_account import StepAccount
from trainer.stopping import StopRequest
from trainer.world import World


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
        plan: Plan,
        loader: BatchSource,
        trained: Trained,
        engine: Engine,
        train_step: TrainStep,
        clock: PhaseClock,
        verification: RunVerification,
        checkpoints: RunCheckpoints,
        reporting: Reporting,
        account: StepAccount,
        pulse: Pulse,
        stop: StopRequest,
        position: Position,
    ) -> None:
        self._config = config
        self._world = world
        self._plan = plan
        self._loader = loader
        self._trained = trained
        self._engine = engine
        self._train_step = train_step
        self._guard = NonFiniteGuard(config.failure, trained.passed)
        self._clock = clock
        self._verification = verification
        self._checkpoints = checkpoints
        self._reporting = reporting
        self._account = account
        self._pulse = pulse
        self._stop = stop
        self._step = position.step
        self._samples = position.samples
        self._step_phase = FIRST_STEP

    def run(self) -> ExitCode:
        """DONE when the last step is taken and saved, STOPPED when asked to stop earlier and saved."""
        try:
            try:
                return self._run()
            except NonFiniteError:  # on all ranks, in the same step
                self._checkpoints.finish()
                raise
        except BaseException:
            self._pulse.fail()
            self._checkpoints.abandon()
            raise

    def _run(self) -> ExitCode:
        if self._step == 0 and self._config.evaluation.at_start:
            self._verify()
            if self._stop_is_agreed():
                return self._stop_here()
        while self._step < self._plan.total_steps:
            batches = iter(self._loader)
            while self._step < self._plan.total_steps:
                self._pulse.enter(self._step_phase, self._step + 1)
                with self._clock.phase("data"):
                    batch = next(batches, None)
                if batch is None:
                    break
                self._take_step(batch)
                if self._stop_is_agreed():
                    return self._stop_here()
                if self._between_steps() and self._stop_is_agreed():
                    return self._stop_here()
        return self._finish()

    def _stop_is_agreed(self) -> bool:
        """Between two steps: one all-reduce says all that ranks must agree on."""
        self._pulse.enter_part("agreement")
        stop, busy, failed = any_rank_each(self._world, [self._stop.asked, *self._checkpoints.flags])
        self._checkpoints.advance(busy=busy, failed=failed)
        return stop

    def _take_step(self, batch: Batch) -> None:
        learning_rate = self._plan.learning_rate(self._step)
        result = self._train_step(
            batch,
            learning_rate,
            global_batch=self._loader.last_global_batch,
            survey=self._account.is_told(self._step + 1),
        )
        self._step += 1
        self._samples += self._loader.last_global_batch
        self._step_phase = STEP
        step_seconds, phase_seconds = self._clock.finish_step()
        goes_back = self._guard.judge(result)
        self._account.step_taken(
            result,
            step=self._step,
            samples=self._samples,
            local_batch=len(batch.identities),
            global_batch=self._loader.last_global_batch,
            learning_rate=learning_rate,
            step_seconds=step_seconds,
            phase_seconds=phase_seconds,
        )
        if goes_back:
            self._go_back()

    def _go_back(self) -> None:
        """Take weights, centers, optimizer state and random numbers of a checkpoint; everything else goes on."""
        self._pulse.enter(LOADING, self._step)
        counts = replace(self._trained.passed)
        position, damages = self._checkpoints.load_before(
            self._guard.only_before(self._step), seed=self._config.run.seed
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

    def _between_steps(self) -> bool:
        """What is due after some steps; whether anything was, which takes long enough to be asked to stop."""
        if self._step == self._plan.total_steps:
            return False
        every = self._config.evaluation.every_steps
        verify = every > 0 and self._step % every == 0
        score = self._verify() if verify else None
        # A checkpoint amid steps that are not finite might hold the weights that cause it.
        save = not self._guard.in_doubt and self._checkpoints.is_wanted(self._step, score)
        if save:
            self._pulse.enter(SAVING, self._step)
            self._guard.saving()
            self._checkpoints.save(self._position(), score)
            self._clock.restart()
        self._checkpoints.make_room(self._step)
        return verify or save

    def _position(self) -> Position:
        return Position(self._step, self._samples, self._loader.state_dict(), self._account.state())

    def _verify(self) -> Score | None:
        """Verify, tell, and return what counts when checkpoints are compared."""
        self._pulse.enter(EVALUATING, self._step)
        results = self._verification.run(self._engine.to_evaluate(), self._step, self._stop_is_agreed)
        for result in results:
            self._reporting.metrics.record_verification(result)
            self._reporting.log.info(
                "verification", step=self._step, pairs=result.name, accuracy=result.accuracy_mean, auc=result.auc
            )
            self._reporting.progress.say(
                f"step {self._step}: {result.name} accuracy {100 * result.accuracy_mean:.2f}% "
                f"± {100 * result.accuracy_std:.2f}"
            )
        self._reporting.writers.write_verification(self._step, time.time(), results)
        if self._verification.problem is not None:
            self._reporting.warn("results of the verification are not stored", self._verification.problem)
        score = self._checkpoints.score_of(results)
        self._clock.restart()
        return score

    def _stop_here(self) -> ExitCode:
        if self._step == self._plan.total_steps:
            return self._finish()
        if not self._checkpoints.is_saved(self._step):
            self._save_now()
        return self._stopped()

    def _stopped(self) -> ExitCode:
        self._reporting.log.info("stopped", step=self._step, signal=self._stop.signal_name)
        self._reporting.progress.say(
            f"stopped on request at step {self._step} of {self._plan.total_steps}, checkpoint written: "
            "run the same command again to continue"
        )
        return ExitCode.STOPPED

    def _finish(self) -> ExitCode:
        if not self._checkpoints.is_saved(self._plan.total_steps):
            self._save_now()
        if not self._verification.has_results(self._step):
            score = self._verify()
            if self._stop_is_agreed() and not self._verification.has_results(self._step):
                return self._stopped()
            self._checkpoints.add_score(self._step, score)
        self._reporting.log.info("finished", step=self._step, samples=self._samples)
        return ExitCode.DONE

    def _save_now(self) -> None:
        self._pulse.enter(SAVING, self._step)
        self._guard.saving()
        self._checkpoints.save_now(self._position())
