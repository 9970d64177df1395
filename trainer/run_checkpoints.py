"""When a run is saved, and what is told of it: to the metrics, the log and the terminal."""

import socket
import time
from collections.abc import Sequence
from pathlib import Path

from trainer.agreement import first_rank_decides, of_all_ranks
from trainer.available_memory import available_bytes
from trainer.checkpoint import (
    CheckpointSaver,
    Outcome,
    Position,
    Retention,
    Score,
    Trained,
    complete_checkpoints,
    load_newest,
)
from trainer.checkpoint.description import write_score
from trainer.checkpoint.draft import remove_leftovers
from trainer.checkpoint.folders import FOLDER, folder_name, read_scores
from trainer.checkpoint_config import MEAN
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.evaluation import VerificationResult
from trainer.reporting import Reporting
from trainer.world import World

GIB = 1 << 30
ROOM_FOR_TRAINING = 1.0  # of what copies take, must be free besides them: the head's worst phase needs about as much


class RunCheckpoints:
    """The checkpoints of one run, from its position on; every method but :meth:`abandon` is called by all ranks.

    A checkpoint that cannot be written does not end the run, unless it is the last one.
    """

    def __init__(
        self,
        *,
        config: Config,
        world: World,
        run_folder: Path,
        trained: Trained,
        reporting: Reporting,
        pair_names: Sequence[str],
        position: Position,
    ) -> None:
        self._every = config.checkpoint.every_steps
        self._world = world
        self._run_folder = run_folder
        self._trained = trained
        self._reporting = reporting
        self._pair_names = set(pair_names)
        self._pairs = config.checkpoint.scored_pairs(list(pair_names))
        self._retention = Retention(config.checkpoint.keep, config.checkpoint.keep_best, self._pairs)
        # Without regular checkpoints, only those of the best weights are written while training goes on.
        regular = self._every > 0 or (self._pairs is not None and config.evaluation.every_steps > 0)
        self._reserves = config.checkpoint.asynchronous and regular
        self._reserved = False
        self._saved_step = position.step if position.step else None
        self._scores: list[Score] = []
        if world.is_first:
            remove_leftovers(run_folder)
            self._scores = list(read_scores(complete_checkpoints(run_folder)).values())
        self._saver = CheckpointSaver(
            run_folder,
            config=config,
            world=world,
            retention=self._retention,
            asynchronous=config.checkpoint.asynchronous,
        )

    @property
    def flags(self) -> tuple[bool, bool]:
        """Of this rank, to be or-ed over all ranks for :meth:`advance`, after every step."""
        return self._saver.flags

    def advance(self, *, busy: bool, failed: bool) -> None:
        """Take what is being written one stage on, and tell if it has ended."""
        outcome = self._saver.advance(busy=busy, failed=failed)
        if outcome is not None:
            self._tell(outcome)

    def is_due(self, step: int) -> bool:
        """Whether the run is saved after this step, whatever verification says."""
        return self._every > 0 and step % self._every == 0

    def score_of(self, results: Sequence[VerificationResult]) -> Score | None:
        """What counts of a verification, from rank 0's results; None where nothing does, or pair sets were left out
        because the run is asked to stop.
        """
        if self._pairs is None:
            return None
        accuracy = {result.name: float(result.accuracy_mean) for result in results}
        pairs = self._pairs

        def choose() -> Score | None:
            if not accuracy.keys() >= self._pair_names:
                return None
            return Score(pairs, sum(accuracy.values()) / len(accuracy) if pairs == MEAN else accuracy[pairs])

        return first_rank_decides(self._world, choose)

    def is_wanted(self, step: int, score: Score | None) -> bool:
        """Whether a checkpoint is due or its weights are among the best; score: of these very weights."""
        return self.is_due(step) or (score is not None and self._is_among_best(score))

    def save(self, position: Position, score: Score | None) -> None:
        """Begin a checkpoint; score: of these very weights."""
        for outcome in self._saver.save(self._trained, position, score=score):
            self._tell(outcome)

    def load_before(self, step: int, *, seed: int) -> tuple[Position | None, list[str]]:
        """Go back to the newest whole checkpoint of a step before ``step``, as :func:`load_newest` does."""
        self.finish()
        return load_newest(self._run_folder, self._trained, world=self._world, seed=seed, before=step)

    def save_now(self, position: Position) -> None:
        """Save and return when all is on disk. Raises CheckpointWriteError, when what was pending has ended, too."""
        *before, last = self._saver.save(self._trained, position, finish=True)
        for outcome in before:
            self._tell(outcome)
        self._account(last)
        if last.error is not None:
            raise last.error

    def is_saved(self, step: int) -> bool:
        """Whether the newest complete checkpoint is of this step; waits for one on its way."""
        self.finish()
        return self._saved_step == step

    def finish(self) -> None:
        """Wait for what is being written: before the run ends, or goes back to an earlier checkpoint."""
        for outcome in self._saver.wait():
            self._tell(outcome)

    def abandon(self) -> None:
        """Leave without the other ranks: for a run that fails."""
        self._saver.abandon()

    def add_score(self, step: int, score: Score | None) -> None:
        """Note what the weights of the saved ``step`` turned out to be worth, and keep the best accordingly."""
        if score is None or not self._world.is_first:
            return
        try:
            write_score(self._run_folder / FOLDER / folder_name(step), score)
            self._retention.apply(self._run_folder, now=step)
            self._scores.append(score)
        except (OSError, ConfigError) as error:
            self._reporting.log.warning("score not saved", step=step, reason=str(error))

    def make_room(self, step: int) -> None:
        """After each step: see that there is memory for the copies of the next checkpoint before it is due."""
        # After the first step all that learns has its momentum; the centers' takes more room as training goes on.
        ahead = max(1, self._every // 10)
        if self._reserves and (not self._reserved or (self._every > 1 and self.is_due(step + ahead))):
            parts = self._saver.copied_parts(self._trained)
            if not self._reserved:
                self._reserved = True
                needed = sum(part.tensor.nbytes for part in parts.values())
                here = socket.gethostname()
                hosts = of_all_ranks(self._world, (here, needed))
                self._spare_memory(sum(size for host, size in hosts if host == here))
            self._saver.reserve(parts)

    def _spare_memory(self, needed: int) -> None:
        """Do without copies where this machine's ranks, which need so many bytes for them, would leave too little."""
        available = available_bytes()
        if available is None or needed * (1.0 + ROOM_FOR_TRAINING) <= available:
            return
        self._saver.save_memory()
        text = (
            f"checkpoints are written while training waits: copies would take {needed / GIB:.1f} GiB of this machine's "
            f"memory, {available / GIB:.1f} GiB are free"
        )
        self._reporting.log.warning("no memory for asynchronous checkpoints", needed=needed, available=available)
        self._reporting.progress.say(f"warning: {text}")

    def _is_among_best(self, score: Score) -> bool:
        pending = self._saver.pending_score

        def decide() -> bool:
            return self._retention.is_kept(score, self._scores + ([] if pending is None else [pending]))

        return first_rank_decides(self._world, decide)

    def _tell(self, outcome: Outcome) -> None:
        self._account(outcome)
        if outcome.error is not None:
            self._reporting.progress.say(
                f"warning: no checkpoint of step {outcome.step}: {outcome.error.filename}: {outcome.error.problem}; "
                "earlier ones are intact, the run goes on and tries again when the next one is due"
            )

    def _account(self, outcome: Outcome) -> None:
        to = self._reporting
        if outcome.error is not None:
            to.metrics.checkpoint_failures.labels(outcome.error.reason).inc()
            to.log.error(
                "checkpoint failed", step=outcome.step, reason=outcome.error.reason, error=str(outcome.error),
                seconds=outcome.seconds,
            )  # fmt: skip
            return
        self._saved_step = outcome.step
        if outcome.score is not None:
            self._scores.append(outcome.score)
        to.metrics.record_checkpoint(
            step=outcome.step,
            seconds=outcome.seconds,
            stall_seconds=outcome.stall_seconds,
            nbytes=outcome.nbytes,
            written=time.time(),
        )
        to.log.info(
            "checkpoint", step=outcome.step, folder=str(outcome.folder), seconds=outcome.seconds,
            stall_seconds=outcome.stall_seconds, bytes=outcome.nbytes,
            accuracy=None if outcome.score is None else outcome.score.accuracy,
        )  # fmt: skip
