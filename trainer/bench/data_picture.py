"""The data benchmark as a picture: throughput of each loader, and what opening costs."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_pipeline.pending_file import write_file
from trainer.bench.data_problem import BARE, BARE_FLIP, PIL, DataEffort, OpeningRow, ThroughputRow
from trainer.bench.data_table import MIB, conditions
from trainer.bench.head_picture import short_count

OURS, BARE_COLOUR, PIL_COLOUR = "#0b7a75", "#8a8a8a", "#b3261e"


def write_picture(
    path: Path, throughput: Sequence[ThroughputRow], opening: Sequence[OpeningRow], effort: DataEffort
) -> None:
    """Bars of images per second; beside them seconds and memory of opening, where these were measured."""
    panels = (1 if throughput else 0) + (2 if opening else 0)
    figure = Figure(figsize=(5.2 * panels, 0.5 * max(len(throughput), len(opening)) + 1.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if throughput:
        _throughput(axes.pop(0), throughput)
    if opening:
        labels = [f"{row.method}\n{short_count(row.records)} in {row.files}" for row in opening]
        colours = [OURS if row.method.startswith("pfc") else BARE_COLOUR for row in opening]
        seconds, memory = [row.seconds for row in opening], [row.peak_bytes / MIB for row in opening]
        _bars(axes[0], labels, seconds, [f"{value:.2f} s" for value in seconds], colours)
        _bars(axes[1], labels, memory, [f"{value:,.0f} MiB" for value in memory], colours)
        axes[0].set_title("Opening the index: seconds", fontsize=10, loc="left")
        axes[1].set_title("Opening the index: peak memory", fontsize=10, loc="left")
    figure.supxlabel(conditions(effort), fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_file(path, buffer.getvalue())


def _throughput(axes: Any, rows: Sequence[ThroughputRow]) -> None:
    colours = {BARE: BARE_COLOUR, BARE_FLIP: BARE_COLOUR, PIL: PIL_COLOUR}
    rates = [row.images_per_second for row in rows]
    notes = [
        f"{row.images_per_second:,.0f}" + ("" if row.over_bare is None else f"  {row.over_bare:.2f}x DALI")
        for row in rows
    ]
    _bars(axes, [row.method for row in rows], rates, notes, [colours.get(row.method, OURS) for row in rows])
    for place, row in enumerate(rows):
        axes.plot([row.images_per_second_q1, row.images_per_second_q3], [place, place], color="#222222", linewidth=1.2)
    axes.set_title("Images per second", fontsize=10, loc="left")


def _bars(
    axes: Any, labels: Sequence[str], values: Sequence[float], notes: Sequence[str], colours: Sequence[str]
) -> None:
    axes.barh(range(len(values)), values, color=colours, height=0.66)
    for place, (value, note) in enumerate(zip(values, notes, strict=True)):
        axes.annotate(note, (value, place), xytext=(5, 6), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(values)), labels, fontsize=8)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlim(0, max([*values, 1e-9]) * 1.35)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
