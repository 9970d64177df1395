"""Rows of curves, and those of the past: read again from the run's own files, which are whole after any end."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.writers.curves import line_curves, verification_curves

JOURNAL = "metrics.jsonl"
EVALUATIONS = "evaluations"
LINE = ""


@dataclass(frozen=True)
class Row:
    """Values of one step. part: of what is told of the step: LINE or the name of a pair set. time: since 1970."""

    step: int
    part: str
    time: float
    curves: dict[str, float]


def past_rows(run_folder: Path, *, until: int) -> Iterator[Row]:
    """What the run has told up to a step, by step; of one step, the verification last."""
    verified = _verified(run_folder, until)
    for row in _lines(run_folder / JOURNAL, until):
        while verified and verified[0].step < row.step:
            yield verified.pop(0)
        yield row
    yield from verified


def _lines(path: Path, until: int) -> Iterator[Row]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # a torn line is none
                line = json.loads(text)
                if int(line["step"]) <= until:
                    yield Row(int(line["step"]), LINE, float(line["time"]), line_curves(line))


def _verified(run_folder: Path, until: int) -> list[Row]:
    rows = []
    for path in (run_folder / EVALUATIONS).glob("step_*/*.json"):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            numbers = json.loads(path.read_bytes())
            if int(numbers["step"]) <= until:
                name = str(numbers["name"])
                rows.append(Row(int(numbers["step"]), name, path.stat().st_mtime, verification_curves(numbers)))
    return sorted(rows, key=lambda row: (row.step, row.part))
