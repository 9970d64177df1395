"""The growth of cost as a picture: time above, memory and bytes below, one column for each axis, all logarithmic."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from data_pipeline.pending_file import write_file
from trainer.bench.head_picture import short_count
from trainer.bench.scaling_problem import AXES, CLASSES, WORLD, ScalingRow
from trainer.bench.scaling_table import GROWS_WITH, exponent_text
from trainer.bench.scaling_theory import Judged, judge

MIB = 1 << 20
KINDS = (".png", ".svg")
TIMES = (
    ("wall", "step, wall clock", "#0b7a75", "o"),
    ("compute", "computing, CPU time of a rank", "#5b5bd6", "s"),
    ("waited", "in collectives, wall clock", "#e08e1b", "^"),
    ("bare_exchange", "the same collectives alone", "#b3261e", "v"),
)
SIZES = (
    ("memory", "memory of a rank", "#0b7a75", "o"),
    ("bytes_moved", "bytes handed to collectives by a rank", "#e08e1b", "^"),
)
OF_RANKS = ("waited", "bare_exchange", "bytes_moved")


def write_picture(path: Path, rows: Sequence[ScalingRow]) -> None:
    """PNG or SVG, by the name. Dashed: the slope that theory gives, through the last point of what it speaks of."""
    axes_measured = [axis for axis in AXES if any(row.point.axis == axis for row in rows)]
    figure = Figure(figsize=(1.0 + 5.0 * len(axes_measured), 8.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("One training step of the head: how cost grows", fontsize=12, fontweight="bold")
    grid = figure.subplots(2, len(axes_measured), squeeze=False, sharex="col")
    judged = judge(rows)
    for column, axis in enumerate(axes_measured):
        mine = sorted((row for row in rows if row.point.axis == axis), key=lambda row: row.point.place)
        laws = [each for each in judged if each.law.axis == axis]
        _panel(grid[0][column], mine, laws, TIMES, 1.0)
        _panel(grid[1][column], mine, laws, SIZES, MIB)
        grid[0][column].set_title(_title(mine), fontsize=9)
        grid[1][column].set_xlabel(GROWS_WITH[axis])
    grid[0][0].set_ylabel("seconds a step")
    grid[1][0].set_ylabel("MiB")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:], dpi=120)
    write_file(path, drawn.getvalue())


def _panel(axes: Any, rows: Sequence[ScalingRow], laws: Sequence[Judged], figures: Sequence[Any], unit: float) -> None:
    for name, label, colour, marker in figures:
        here = [row for row in rows if name not in OF_RANKS or row.point.world_size > 1]
        if not here or (here[0].point.axis != WORLD and name in OF_RANKS):
            continue
        law = next((each for each in laws if each.law.figure == name), None)
        shown = label if law is None or law.fit is None else f"{label}: exponent {exponent_text(law)}"
        places, values = [row.point.place for row in here], [getattr(row, name) / unit for row in here]
        axes.plot(places, values, marker=marker, color=colour, linewidth=1.6, markersize=5, label=shown)
        if law is not None and law.fit is not None:
            last, height = places[-1], values[-1]
            guide = [place for place in places if place >= law.first]
            axes.plot(
                guide,
                [height * (place / last) ** law.law.exponent for place in guide],
                "--",
                color=colour,
                linewidth=0.9,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([row.point.place for row in rows])
    count = short_count if rows[0].point.axis == CLASSES else "{:,.0f}".format  # 2,048 and not 2.048k
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_ylim()
    axes.set_ylim(low / 1.15, high * 5)  # room for the legend
    axes.legend(fontsize=8, loc="upper left", framealpha=0.85)
    axes.grid(color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _title(rows: Sequence[ScalingRow]) -> str:
    point = rows[0].point
    cores = f"{point.threads} {'thread' if point.threads == 1 else 'threads'} a rank"
    if point.axis == CLASSES:
        return f"global batch {point.global_batch}, D={point.embedding_dim}, {cores}"
    batch = f", global batch {point.global_batch}" if point.axis == WORLD else ""
    return f"{point.num_classes:,} classes, D={point.embedding_dim}{batch}, {cores}"
