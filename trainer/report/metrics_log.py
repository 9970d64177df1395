"""Read ``metrics.jsonl`` line by line into one compact column per figure.

N: lines that count. A million logged steps (740 MB of JSON) took 390 MiB of memory at the peak, report included.
"""

import json
import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PHASES = ("data", "forward", "head", "backward", "optimizer", "other")
_WIDE = ("time", "step", "samples")  # float32 would round these
_FIELDS = (
    *_WIDE,
    "epoch",
    "loss",
    "loss_intra",
    "loss_inter",
    "theta_positive",
    "theta_negative",
    "theta_negative_std",
    "active_pairs",
    "cut",
    "error",
    "bytes_moved",
    "learning_rate",
    "images_per_second",
    "step_seconds",
    "world_size",
    "global_batch",
)
_MODES = {"screened": 1.0, "dense": 0.0}
_LONGEST_LINE = 1 << 20  # bytes; longer ones are no metrics of ours
_LARGEST_STEP = 1 << 53

Column = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MetricsLog:
    """What a run logged, in the order of its steps.

    columns: name -> [N] float64, NaN where a line lacks the figure or holds a value that is not finite. Besides
        the keys of the log: ``screened`` (1 screened, 0 dense) and ``phase_NAME`` (seconds).
    unreadable_lines: lines that are no JSON object with a step. A torn last line, as a killed run leaves, is not
        counted.
    rewinds: how often the log jumps back, that is how often the run resumed from an earlier step.
    non_finite_losses: lines that counted and whose loss was NaN or infinite.
    """

    columns: dict[str, Column]
    unreadable_lines: int = 0
    rewinds: int = 0
    non_finite_losses: int = 0

    def __len__(self) -> int:
        return int(self.columns["step"].size)

    def __getitem__(self, name: str) -> Column:
        return self.columns[name]

    def last(self, name: str) -> float | None:
        """The latest finite value of a column, or None."""
        finite = self.columns[name][np.isfinite(self.columns[name])]
        return float(finite[-1]) if finite.size else None

    def median(self, name: str) -> float | None:
        """The median of a column's finite values, or None."""
        finite = self.columns[name][np.isfinite(self.columns[name])]
        return float(np.median(finite)) if finite.size else None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _lines(path: Path) -> Iterator[dict[str, object] | None]:
    """Each line as an object, None where it is not one."""
    with path.open("rb") as file:
        while line := file.readline(_LONGEST_LINE):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
                    return
                entry = None
            yield entry if isinstance(entry, dict) else None


def _standing(steps: Column) -> NDArray[np.bool_]:
    """Which lines still stand. A run that resumes at step s repeats s, s+1, ...: lines of an earlier life whose
    step is not below every later line's step were superseded, also those the new life has not reached yet.
    """
    later_minimum = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.inf)
    return steps < later_minimum


def read_metrics(path: Path) -> MetricsLog:
    """Read the log of a run; a missing file is an empty log.

    Lines of repeated steps count once: the last one wins (see ``_standing``).
    """
    names = (*_FIELDS, "screened", *(f"phase_{phase}" for phase in PHASES))
    raw = {name: array("d" if name in _WIDE else "f") for name in names}
    non_finite = array("b")
    unreadable = 0
    for entry in _lines(path) if path.is_file() else ():
        step = _number(entry.get("step")) if entry is not None else math.nan
        if entry is None or not 0 <= step < _LARGEST_STEP:
            unreadable += 1
            continue
        for name in _FIELDS:
            raw[name].append(_number(entry.get(name)))
        mode = entry.get("mode")
        raw["screened"].append(_MODES.get(mode, math.nan) if isinstance(mode, str) else math.nan)
        phases = entry.get("phase_seconds")
        for phase in PHASES:
            raw[f"phase_{phase}"].append(_number(phases.get(phase)) if isinstance(phases, dict) else math.nan)
        non_finite.append("loss" in entry and not math.isfinite(raw["loss"][-1]))

    steps = np.frombuffer(raw["step"], dtype=np.float64)
    standing = _standing(steps)
    columns = {}
    for name in names:
        column = np.array(raw.pop(name), dtype=np.float64)[standing]
        column[~np.isfinite(column)] = np.nan
        columns[name] = column
    return MetricsLog(
        columns=columns,
        unreadable_lines=unreadable,
        rewinds=int((np.diff(steps) <= 0).sum()),
        non_finite_losses=int(np.frombuffer(non_finite, dtype=np.int8)[standing].sum()),
    )
