"""What a protocol found: numbers for programs, tables for people, curves for pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.evaluation.bootstrap import Interval
from trainer.evaluation.operating_points import OperatingPoint
from trainer.evaluation.roc import FloatArray

CurveKind = Literal["verification", "open set", "sizes"]


@dataclass(frozen=True, eq=False)
class ErrorCurve:
    """ "verification": x false accept rate, y true accept rate.  "open set": x FPIR, y TPIR.  "sizes": x distractors, y
    rank rate. Rates in [0, 1]; x rises.
    """

    kind: CurveKind
    name: str
    x: FloatArray
    y: FloatArray


@dataclass(frozen=True)
class TextTable:
    """A heading over the columns, and rows of text."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """name: also of its folder and files.  protocol: what was done, in words.  numbers: what JSON can hold.
    tables: without those that ``format_table`` prints.
    """

    name: str
    protocol: str
    numbers: dict[str, Any]
    tables: tuple[TextTable, ...] = ()
    curves: tuple[ErrorCurve, ...] = field(default=())


def point_numbers(points: Sequence[OperatingPoint], intervals: dict[str, Interval]) -> dict[str, Any]:
    """By target: threshold, far, tar, false_accepts, tar_error, tar_interval (None without one)."""
    return {
        point.target: {
            "threshold": point.threshold,
            "far": point.far,
            "tar": point.tar,
            "false_accepts": point.false_accepts,
            "tar_error": point.tar_error,
            "tar_interval": None if point.tar is None else interval_of(intervals, f"far {point.target}"),
        }
        for point in points
    }


def point_table(
    points: Sequence[OperatingPoint], intervals: dict[str, Interval], confidence: float, title: str
) -> TextTable:
    """A row for each rate that can be measured."""
    rows = tuple(
        (
            point.target,
            f"{point.threshold:.6f}",
            f"{point.far:.3g}",
            f"{point.false_accepts:,}",
            percent(point.tar),
            interval_text(intervals.get(f"far {point.target}")),
        )
        for point in points
        if point.tar is not None
    )
    unmeasurable = [point.target for point in points if point.tar is None]
    if unmeasurable:
        title += f" (too few different pairs for FAR {', '.join(unmeasurable)})"
    heading = ("FAR <=", "threshold", "FAR reached", "false accepts", "TAR %", interval_heading(confidence))
    return TextTable(title, heading, rows)


def interval_of(intervals: dict[str, Interval], name: str) -> list[float] | None:
    """[low, high] for JSON."""
    found = intervals.get(name)
    return None if found is None else list(found)


def interval_heading(confidence: float) -> str:
    """What the column of intervals is called."""
    return f"{100 * confidence:g}% interval"


def interval_text(interval: Interval | None) -> str:
    """ "81.20 - 84.90", of rates in percent."""
    return "-" if interval is None else f"{100 * interval[0]:.2f} - {100 * interval[1]:.2f}"


def percent(rate: float | None) -> str:
    """A rate as a table has it."""
    return "-" if rate is None else f"{100 * rate:.2f}"
