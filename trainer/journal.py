"""metrics.jsonl: one line of averages every few steps, the source of the report's curves."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.pending_file import PendingFile
from partial_fc import QUANTILES, AngleSurvey, HeadStats
from trainer.checkpoint import Passed
from trainer.engine import Outcome
from trainer.line_file import LineFile

AVERAGED = (
    "loss",
    "loss_intra",
    "loss_inter",
    "theta_positive",
    "theta_negative",
    "theta_negative_std",
    "active_pairs",
    "error",
)


class Journal:
    """Collects steps and appends their averages to ``path`` as one JSON object a line (None: to no file).

    Each line repeats ``constants`` of the run, so that it can be read alone. Angles are in radians, times in seconds;
    ``active_pairs`` is the mean per step over all ranks. Lines that a full disk does not take wait in memory.
    """

    def __init__(self, path: Path | None, *, constants: Mapping[str, int]) -> None:
        self._file = None if path is None else LineFile(path)
        self._constants = dict(constants)
        self._reset()

    @property
    def problem(self) -> OSError | None:
        """Why lines wait to be written; None while all is well."""
        return None if self._file is None else self._file.problem

    def state(self) -> dict[str, Any]:
        """What was collected since the last line, so that a run resumed here writes the same next line."""
        return {
            "sums": {key: _number(total) for key, total in self._sums.items()},
            "phases": dict(self._phases),
            "modes": dict(self._modes),
            "seconds": self._seconds,
            "samples": self._samples,
            "steps": self._steps,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The counterpart of :meth:`state`; an empty one begins anew."""
        self._reset()
        if state:
            self._sums |= {key: math.nan if total is None else total for key, total in state["sums"].items()}
            self._phases |= state["phases"]
            self._modes |= state["modes"]
            self._seconds, self._samples, self._steps = state["seconds"], state["samples"], state["steps"]

    def _reset(self) -> None:
        self._sums = dict.fromkeys((*AVERAGED, "gradient_norm"), 0.0)
        self._phases: dict[str, float] = {}
        self._modes: dict[str, int] = {}
        self._seconds = 0.0
        self._samples = 0
        self._steps = 0
        self._taken = 0
        self._last: HeadStats | None = None

    def add(
        self,
        stats: HeadStats,
        *,
        samples: int,
        step_seconds: float,
        phase_seconds: Mapping[str, float],
        outcome: Outcome | None = None,
    ) -> None:
        """Take one step in; samples: of all ranks. Of one that was passed over, the times alone."""
        self._seconds += step_seconds
        self._samples += samples
        self._steps += 1
        self._last = stats
        for phase, seconds in phase_seconds.items():
            self._phases[phase] = self._phases.get(phase, 0.0) + seconds
        if outcome is not None and not outcome.applied:
            return
        self._taken += 1
        for key in AVERAGED:
            self._sums[key] += stats[key]
        self._sums["gradient_norm"] += math.nan if outcome is None else outcome.gradient_norm
        self._modes[stats.mode] = self._modes.get(stats.mode, 0) + 1

    @property
    def images_per_second(self) -> float:
        """Of all ranks, over the steps collected since the last line."""
        return self._samples / self._seconds if self._seconds else 0.0

    def write(
        self,
        *,
        time: float,
        step: int,
        epoch: float,
        samples: int,
        learning_rate: float,
        skipped_records: Mapping[str, int] | None = None,
        passed: Passed | None = None,
        angles: AngleSurvey | None = None,
    ) -> dict[str, Any]:
        """Append the averages since the last line and return them; samples: all that the run has seen.

        skipped_records: bad images that this rank has replaced, by reason. passed: steps that were not taken since the
        run began. angles: of the last step's batch.
        """
        assert self._last is not None, "a line needs at least one step"
        line: dict[str, Any] = {"time": time, "step": step, "epoch": epoch, "samples": samples}
        line |= {key: _number(total / self._taken if self._taken else math.nan) for key, total in self._sums.items()}
        line |= {
            "mode": self._last.mode,
            "mode_steps": self._modes,
            "cut": self._last.cut,
            "bytes_moved": self._last.bytes_moved,
            "learning_rate": learning_rate,
            "images_per_second": self.images_per_second,
            "step_seconds": self._seconds / self._steps,
            "skipped_records": dict(skipped_records or {}),
            "nonfinite_steps": passed.non_finite if passed else 0,
            "overflow_steps": passed.overflow if passed else 0,
            "phase_seconds": {phase: seconds / self._steps for phase, seconds in self._phases.items()},
        }
        if angles is not None:
            line["embedding_norm"] = _number(angles.embedding_norm)
            for pair, values in (("positive", angles.positive), ("negative", angles.negative)):
                line[f"theta_{pair}_quantiles"] = {
                    str(share): _number(value) for share, value in zip(QUANTILES, values, strict=True)
                }
        line |= self._constants
        if self._file is not None:
            self._file.append(json.dumps(line))
        self._reset()
        return line


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None  # JSON has no NaN


def forget_after(path: Path, step: int) -> None:
    """Drop lines of steps later than ``step``: a run resumed there writes them again.

    A torn last line of a killed run goes too. Written to a temporary file and renamed.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as old, PendingFile(path) as new:
        for line in old:
            try:
                keep = line.endswith("\n") and int(json.loads(line)["step"]) <= step
            except (ValueError, KeyError, TypeError):
                keep = False
            if keep:
                new.stream.write(line.encode())
