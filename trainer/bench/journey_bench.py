"""From nothing to an evaluated model by the commands that a user types, through the death of all ranks."""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from trainer.bench.journey_data import PAIRS, data_folder, draw, size_on_disk
from trainer.bench.journey_log import journal, stretch, tenths
from trainer.bench.journey_problem import Ended, Journey, JourneyEffort, Learned, Restart, Stretch
from trainer.bench.phase_command import PhaseCommand, phase_command
from trainer.bench.restart_log import RankEvents
from trainer.checkpoint.folders import complete_checkpoints, step_of
from trainer.config import Config
from trainer.errors import PeerFailedError
from trainer.evaluation import load_results
from trainer.run_verification import FOLDER as EVALUATIONS

EVALUATED = "evaluated"


def bench_journey(
    config: Config,
    path: Path,
    overrides: Sequence[str],
    effort: JourneyEffort,
    *,
    end: float,
    say: Callable[[str], None],
) -> Journey:
    """Draw the data, train, kill, continue on another number of ranks, evaluate, report.

    config: ``path`` with ``overrides``. end: time.monotonic() at which whatever still runs is killed. Raises
    PeerFailedError where a command fails, or the continued run does not go on at its newest checkpoint or loses or
    repeats a step; ConfigError for what cannot be used.
    """
    began = time.monotonic()
    drawn = draw(config, effort, end=end)
    say(f"data set: {drawn.images:,} images of {effort.identities:,} identities, {drawn.seconds:.0f} s")
    run = _Run(config, path, overrides, effort, end)
    before, restart, after = run.trained_with_a_death(say)
    output, steps = config.run.output, after.last_step
    lines = journal(output, steps)
    pairs = str(data_folder(config) / PAIRS)
    judged = str(output / EVALUATED)
    evaluation = _ended("evaluating", ["eval", str(output), "--pairs", pairs, "--output", judged], effort, end)
    (found,) = load_results(output / EVALUATED)
    floor = load_results(output / EVALUATIONS)[0]
    learned = Learned(
        *tenths(lines, "loss"),
        *tenths(lines, "theta_positive"),
        accuracy=found.accuracy_mean,
        accuracy_std=found.accuracy_std,
        untrained=floor.accuracy_mean,
        untrained_std=floor.accuracy_std,
    )
    report = _ended("writing the report", ["report", str(output)], effort, end)
    return Journey(
        effort=effort,
        backbone=f"{config.backbone.name} at {config.data.image_size}x{config.data.image_size}",
        embedding_dim=config.backbone.embedding_dim,
        global_batch=config.data.batch_size * effort.ranks,
        drawn=drawn,
        before=before,
        restart=restart,
        after=after,
        evaluation=evaluation,
        learned=learned,
        report=report,
        run_bytes=size_on_disk(output),
        seconds=time.monotonic() - began,
    )


class _Run:
    """The training, start by start."""

    def __init__(self, config: Config, path: Path, overrides: Sequence[str], effort: JourneyEffort, end: float) -> None:
        self._config, self._effort, self._end = config, effort, end
        self._path, self._overrides = path, overrides
        self._output = config.run.output
        self._log = self._rank_log(0)

    def trained_with_a_death(self, say: Callable[[str], None]) -> tuple[Stretch, Restart, Stretch]:
        """Until all steps are taken."""
        began = time.time()
        with self._command(self._effort.ranks, "training") as command:
            started = self._started(command, None)
            self._step_beyond_a_checkpoint(command)
            pids = [int(self._newest_start(rank)["pid"]) for rank in range(self._effort.ranks)]
            command.look()
            killed = time.time()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            phase = command.finish(expected=1)
            ended = time.time() - killed
        before = stretch(self._events(started), phase, began=began, pids=pids)
        saved = complete_checkpoints(self._output)[-1]
        step, nbytes = step_of(saved), size_on_disk(saved)
        say(f"all ranks killed after step {before.last_step}; newest checkpoint: step {step}, {nbytes / 1e9:.2f} GB")

        began = time.time()
        with self._command(self._effort.resume_ranks, "the continued training") as command:
            again = self._started(command, started)
            if again["step"] != step:
                raise PeerFailedError(f"the run continued at step {again['step']}, its newest checkpoint is of {step}")
            pids = [int(self._newest_start(rank)["pid"]) for rank in range(self._effort.resume_ranks)]
            phase = command.finish()
        events = self._events(again)
        next_step = next(event for event in events if event["event"] == "step")
        after = stretch(events, phase, began=began, pids=pids)
        say(f"continued at step {step} on {len(pids)} rank(s), {next_step['at'] - killed:.1f} s after the kill")
        return before, Restart(before.last_step, step, nbytes, ended, next_step["at"] - killed), after

    def _command(self, ranks: int, name: str) -> AbstractContextManager[PhaseCommand]:
        batch = self._config.data.batch_size * self._effort.ranks // ranks
        pairs = json.dumps([str(data_folder(self._config) / PAIRS)])  # TOML writes a list of words alike
        own = [
            f"evaluation.pairs={pairs}",
            f"data.batch_size={batch}",
            f"run.world_size={ranks}",
            "log.every_steps=1",
            "evaluation.at_start=true",
        ]
        settings = [word for setting in [*self._overrides, *own] for word in ("--set", setting)]
        launcher = ["deploy.launch.agent", "--nproc-per-node", str(ranks), "-m", "trainer", "train"]
        threads = max(1, self._effort.cores // ranks)
        return phase_command(name, [*launcher, str(self._path), *settings], threads=threads, end=self._end)

    def _started(self, command: PhaseCommand, before: dict[str, Any] | None) -> dict[str, Any]:
        """The event of the newest start, once all ranks have told of it."""
        ranks = self._effort.ranks if before is None else self._effort.resume_ranks
        since = 0.0 if before is None else before["at"]
        command.wait_for(lambda: all(self._newest_start(rank).get("at", 0.0) > since for rank in range(ranks)), "start")
        self._log.update()
        return next(event for event in reversed(self._log.events) if event["event"] == "started")

    def _step_beyond_a_checkpoint(self, command: PhaseCommand) -> None:
        def found() -> bool:
            whole = [step_of(each) for each in complete_checkpoints(self._output)]
            steps = [event["step"] for event in self._log.update() if event["event"] == "step"]
            return bool(steps and whole) and whole[-1] >= self._effort.kill_after and steps[-1] > whole[-1]

        command.wait_for(found, "step beyond a checkpoint to be killed after")

    def _newest_start(self, rank: int) -> dict[str, Any]:
        events = (self._log if rank == 0 else self._rank_log(rank)).update()
        return next((event for event in reversed(events) if event["event"] == "started"), {})

    def _events(self, started: dict[str, Any]) -> list[dict[str, Any]]:
        """Of rank 0, from this start on."""
        events = self._log.update()
        place = next(place for place, each in enumerate(events) if each is started)
        return events[place:]

    def _rank_log(self, rank: int) -> RankEvents:
        return RankEvents(self._output / "logs" / f"rank_{rank:04d}.jsonl")


def _ended(name: str, words: Sequence[str], effort: JourneyEffort, end: float) -> Ended:
    with phase_command(name, ["trainer", *words], threads=effort.cores, end=end) as command:
        phase = command.finish()
    return Ended(phase.seconds, phase.peak_together)
