"""The study of label noise: what is trained, in which order, and what comes of it.

OUTPUT/  data/  runs/  tuning/  results.json  table.md  noise.png  report.html

A finished training is never repeated; one that was cut short goes on from its checkpoint. So the study, killed
anywhere and started again, ends in the same files as one that was not disturbed.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import Config
from trainer.errors import ConfigError
from trainer.evaluation.store import StoredResult
from trainer.study.candidates import Candidate, described, read_candidates, settings
from trainer.study.cell import Cell, finished, train_cell
from trainer.study.conditions import CLEAN, Condition, conditions_of, prepared
from trainer.study.intervals import Right, judged

OWN = ("data", "runs", "tuning", "results.json", "table.md", "noise.png", "report.html", ".lock")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``pfc study noise`` was asked for. tuning_pairs: judge the candidates; the run's own pairs judge the study.

    tuning_seed: of the trainings that judge candidates. run_seconds: the longest that one training may take.
    """

    config: Config
    output: Path
    losses: Sequence[str]
    closed: Sequence[float]
    opened: Sequence[float]
    distractors: Path | None
    seeds: Sequence[int]
    candidates: Path | None
    tuning_pairs: Path | None
    tuning_seed: int
    run_seconds: float


@dataclass(frozen=True)
class Tuned:
    """What was chosen for a loss, among what. accuracies: of the candidates, None where there was no choice."""

    chosen: Candidate
    candidates: list[Candidate]
    accuracies: list[float | None]


@dataclass(frozen=True)
class Findings:
    """accuracy, right: by (loss, condition), one for each seed. pairs: the set that judges."""

    request: Request
    pairs: Path
    conditions: list[Condition]
    tuned: dict[str, Tuned]
    accuracy: dict[tuple[str, str], list[float]]
    right: dict[tuple[str, str], list[Right]]


class NoiseStudy:
    """The trainings of a request, one after the other. told: called with a line for people after each of them.

    Making it checks the request and writes nothing. Raises ConfigError for a request that cannot be.
    """

    def __init__(self, request: Request, *, told: Callable[[str], None], stopped: Callable[[], bool]) -> None:
        self._request, self._told, self._stopped = request, told, stopped
        config = request.config
        if not config.evaluation.pairs:
            raise ConfigError("evaluation.pairs is missing: the study judges every run by the first of them")
        if config.run.world_size not in (None, 1):
            raise ConfigError(f"run.world_size is {config.run.world_size}: the study trains every run on one rank")
        if config.growth is not None or config.backbone.pretrained is not None:
            raise ConfigError("growth and backbone.pretrained: a study trains from scratch, leave them out")
        if len(config.data.record_files()) != 1:
            raise ConfigError("data.records is several files: write them as one with pfc data reshard --shards 1")
        if request.opened and request.distractors is None:
            raise ConfigError("--open-set needs images of other people: name a data set of them with --distractors")
        self._pairs = config.evaluation.pairs[0]
        self._records = config.data.record_files()[0]
        self.conditions = conditions_of(request.closed, request.opened)
        self._candidates = read_candidates(request.candidates, request.losses)
        self._tunes = any(len(each) > 1 for each in self._candidates.values())
        if self._tunes and request.tuning_pairs is None:
            raise ConfigError(
                "--candidates gives a choice: name the pairs that decide with --tuning-pairs, others than those of "
                "evaluation.pairs, or the study would judge by what it chose by"
            )
        if self._tunes and request.tuning_pairs is not None and request.tuning_pairs.resolve() == self._pairs.resolve():
            raise ConfigError(f"--tuning-pairs {request.tuning_pairs} are those of evaluation.pairs: name other ones")
        if request.tuning_seed in request.seeds:
            raise ConfigError(f"--tuning-seed {request.tuning_seed} is one of --seeds: choose another")
        for pairs in (self._pairs, *([request.tuning_pairs] if self._tunes and request.tuning_pairs else [])):
            if not pairs.is_file():
                raise ConfigError(f"{pairs}: no such pairs file")
        for loss, candidates in self._candidates.items():  # a typo is found now, not after hours
            for candidate in candidates:
                self._cell("check", loss, candidate, CLEAN, request.seeds[0], self._pairs, Path("check")).config()
        self._check_output()

    def run(self) -> Findings:
        """Train what is not trained yet. Raises StudyError when a training fails or the study is asked to stop."""
        request = self._request
        with _locked(request.output) as lock:
            data = {(each, seed): self._data(each, seed) for each in self.conditions for seed in request.seeds}
            tuned = {loss: self._tune(loss, lock) for loss in request.losses}
            findings = Findings(request, self._pairs, self.conditions, tuned, {}, {})
            total, number = len(request.seeds) * len(self.conditions) * len(request.losses), 0
            for seed in request.seeds:  # whole seeds first: what is there early is a study already
                for condition in self.conditions:
                    for loss in request.losses:
                        name = f"{loss}_{condition.name}_seed_{seed}"
                        folder = request.output / "runs"
                        cell = self._cell(
                            name, loss, tuned[loss].chosen, condition, seed, self._pairs, folder,
                            records=data[condition, seed],
                        )  # fmt: skip
                        result = self._result(cell, folder, lock)
                        number += 1
                        key = (loss, condition.name)
                        findings.accuracy.setdefault(key, []).append(result.accuracy_mean)
                        findings.right.setdefault(key, []).append(judged(result.scores, result.same))
                        self._told(f"{number}/{total} {name}: {100 * result.accuracy_mean:.2f}%")
        return findings

    def _data(self, condition: Condition, seed: int) -> Path:
        folder = self._request.output / "data"
        return prepared(condition, seed, records=self._records, distractors=self._request.distractors, folder=folder)

    def _tune(self, loss: str, lock: int) -> Tuned:
        candidates = self._candidates[loss]
        if len(candidates) == 1 or self._request.tuning_pairs is None:
            return Tuned(candidates[0], candidates, [None])
        accuracies: list[float | None] = []
        folder = self._request.output / "tuning"
        for number, candidate in enumerate(candidates):
            cell = self._cell(
                f"{loss}_{number}", loss, candidate, CLEAN, self._request.tuning_seed, self._request.tuning_pairs,
                folder,
            )  # fmt: skip
            result = self._result(cell, folder, lock)
            accuracies.append(result.accuracy_mean)
            self._told(f"tuning {loss}, {described(candidate)}: {100 * result.accuracy_mean:.2f}%")
        best = max(range(len(candidates)), key=lambda number: accuracies[number] or 0.0)  # the first of equals
        return Tuned(candidates[best], candidates, accuracies)

    def _result(self, cell: Cell, folder: Path, lock: int) -> StoredResult:
        found = finished(cell, folder)
        if found is not None:
            return found
        folder.mkdir(parents=True, exist_ok=True)
        return train_cell(cell, folder, deadline_seconds=self._request.run_seconds, lock=lock, stopped=self._stopped)

    def _cell(
        self, name: str, loss: str, candidate: Candidate, condition: Condition, seed: int, pairs: Path, folder: Path,
        *, records: Path | None = None,
    ) -> Cell:  # fmt: skip
        base = self._request.config.to_dict()
        values: dict[str, Any] = base | settings(loss, candidate, base)
        values["run"] = base["run"] | {"output": str(folder / name), "seed": seed}
        # The clean set has as many classes as any spoilt one: all of them train as many centers.
        values["data"] = base["data"] | {"records": str(records or self._records)}
        values["evaluation"] = base["evaluation"] | {"pairs": [str(pairs)], "at_start": False, "every_steps": 0}
        values["checkpoint"] = base["checkpoint"] | {"keep": 1, "keep_best": 0}
        values["checkpoint"].pop("best_by", None)
        for exported in ("metrics", "log"):  # ports and outside services would be all runs' alike
            values.pop(exported, None)
        return Cell(name, values, pairs.stem)

    def _check_output(self) -> None:
        output = self._request.output
        if output.exists() and not output.is_dir():
            raise ConfigError(f"--output {output} is a file: name a folder")
        foreign = [path.name for path in output.iterdir() if path.name not in OWN] if output.is_dir() else []
        foreign = [name for name in foreign if not name.endswith(".tmp")]
        if foreign:
            raise ConfigError(f"--output {output} holds {foreign[0]}, which is of no study: choose another folder")


@contextmanager
def _locked(output: Path) -> Iterator[int]:
    """One study at a time in ``output``, and none while a training of a killed one still runs."""
    output.mkdir(parents=True, exist_ok=True)
    lock = os.open(output / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another study, or a training that it left, is at work in {output}: wait for it to end"
            ) from None
        yield lock
    finally:
        os.close(lock)
