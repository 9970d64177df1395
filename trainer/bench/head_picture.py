"""The head benchmark as a picture: time and memory, a pair of panels per embedding size and batch."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from data_pipeline.pending_file import write_file
from trainer.bench.head_table import conditions
from trainer.bench.problem import ALL_ACTIVE, COSFACE, COSFACE_SAMPLED, PLAIN, PRODUCT, SFACE, Row

COLOURS = {
    PRODUCT: "#8a8a8a",
    SFACE: "#0b7a75",
    ALL_ACTIVE: "#e08e1b",
    PLAIN: "#b3261e",
    COSFACE: "#5b5bd6",
    COSFACE_SAMPLED: "#a78bda",
}
LINES = ("-", "--", ":", "-.")
Series = tuple[str, float | None, float | None, str]  # method, spread, tolerance, what centers are stored in
MARKERS = ("o", "s", "^", "D")


def write_picture(path: Path, rows: Sequence[Row]) -> None:
    """Step over bare product and memory over centers, against the number of classes, or as bars where that is one."""
    panels = list(dict.fromkeys((row.embedding_dim, row.batch) for row in rows))
    series = list(dict.fromkeys(_series(row) for row in rows))
    bars = len({row.num_classes for row in rows}) == 1
    height = 0.6 + 0.34 * len(series) if bars else 3.8
    figure = Figure(figsize=(12, 1.4 + height * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("One training step of the head, against the bare float32 product", fontsize=12, fontweight="bold")
    grid = figure.subplots(len(panels), 2, squeeze=False, sharex="col")
    for (embedding_dim, batch), (time, memory) in zip(panels, grid, strict=True):
        here = [row for row in rows if (row.embedding_dim, row.batch) == (embedding_dim, batch)]
        size = f"D={embedding_dim}, B={batch}" + (f", {here[0].num_classes:,} classes" if bars else "")
        draw = _bars if bars else _curves
        draw(time, here, series, "ratio")
        draw(memory, here, series, "extra_over_centers")
        time.set_title(f"Time / bare product   ({size})", fontsize=10, loc="left")
        memory.set_title("Memory beyond the centers / centers", fontsize=10, loc="left")
    if not bars:
        known = {handle.get_label(): handle for axes in grid[:, 0] for handle in axes.get_legend_handles_labels()[0]}
        columns = max(1, min(4, 170 // max(map(len, known), default=1)))  # characters that are beside each other
        style: dict[str, Any] = {"ncols": columns, "frameon": False, "fontsize": 9, "handlelength": 3.2}
        how = f"{conditions(rows[0])}; hollow: sface on its dense path"
        figure.legend(known.values(), known.keys(), loc="outside lower center", title=how, title_fontsize=8, **style)
        for axes in grid[-1]:
            axes.set_xlabel("classes")
    else:
        figure.supxlabel(conditions(rows[0]), fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_file(path, buffer.getvalue())


def _series(row: Row) -> Series:
    stored = row.center_dtype if row.center_memory == "device" else f"{row.center_dtype} in host memory"
    return row.method, row.spread, row.tolerance, stored


def _label(series: Series) -> str:
    method, spread, tolerance, stored = series
    parts = [] if spread is None or method != SFACE else [f"spread {spread:g}"]
    parts += [] if tolerance is None or method != SFACE else [f"tolerance {tolerance:g}"]
    parts += [] if stored == "float32" else [stored]
    return f"{method} ({', '.join(parts)})" if parts else method


def _strength(series: Series) -> float:
    """Of the colour: as many shades as there are ways to keep centers."""
    return (1.0 if series[3].startswith("float32") else 0.6) * (0.6 if series[3].endswith("memory") else 1.0)


def _curves(axes: Any, rows: Sequence[Row], series: Sequence[Any], figure: str) -> None:
    spreads = list(dict.fromkeys(row.spread for row in rows if row.method == SFACE))
    tolerances = list(dict.fromkeys(row.tolerance for row in rows if row.method == SFACE))
    for each in series:
        line = [row for row in rows if _series(row) == each and getattr(row, figure) is not None]
        line.sort(key=lambda row: row.num_classes)
        if not line or (figure != "ratio" and each[0] == PRODUCT):
            continue
        varied = each[0] == SFACE
        marker = MARKERS[tolerances.index(each[2]) % len(MARKERS)] if varied else "o"
        errors = None
        if figure == "ratio":
            errors = [[row.ratio - row.ratio_q1 for row in line], [row.ratio_q3 - row.ratio for row in line]]
        axes.errorbar(
            [row.num_classes for row in line],
            [getattr(row, figure) for row in line],
            yerr=errors,
            color=COLOURS[each[0]],
            linestyle=LINES[spreads.index(each[1]) % len(LINES)] if varied else "-",
            alpha=_strength(each),
            marker=marker,
            markersize=6,
            linewidth=2 if varied else 1.4,
            capsize=3,
            label=_label(each),
        )
        if each[0] in (SFACE, ALL_ACTIVE):
            dense = [(row.num_classes, getattr(row, figure)) for row in line if row.mode != "screened"]
            places, heights = [place for place, _ in dense], [height for _, height in dense]
            axes.plot(places, heights, marker, color=COLOURS[each[0]], markerfacecolor="white", zorder=3)
    axes.set_xscale("log")
    axes.set_xticks(sorted({row.num_classes for row in rows}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    if figure == "ratio":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.axhline(1.0, color=COLOURS[PRODUCT], linewidth=1, zorder=0)
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    _tidy(axes, "y")


def _bars(axes: Any, rows: Sequence[Row], series: Sequence[Any], figure: str) -> None:
    here = {_series(row): row for row in rows}
    largest = max((getattr(row, figure) or 0.0 for row in rows), default=1.0)
    for place, each in enumerate(series):
        row = here.get(each)
        value = None if row is None else getattr(row, figure)
        if row is None or value is None:
            continue
        axes.barh(place, value, color=COLOURS[each[0]], alpha=_strength(each), height=0.68)
        end = value
        if figure == "ratio":
            axes.plot([row.ratio_q1, row.ratio_q3], [place, place], color="#222222", linewidth=1.2)
            end = max(value, row.ratio_q3)
        mode = f"  {row.mode}" if figure == "ratio" and each[0] in (SFACE, ALL_ACTIVE) else ""
        axes.annotate(
            f"{value:.2f}x{mode}", (end, place), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(range(len(series)), [_label(each) for each in series] if figure == "ratio" else [""] * len(series))
    axes.set_ylim(len(series) - 0.4, -0.6)
    axes.set_xlim(0, (largest or 1.0) * 1.2)
    if figure == "ratio":
        axes.axvline(1.0, color=COLOURS[PRODUCT], linewidth=1)
    _tidy(axes, "x")


def _tidy(axes: Any, along: str) -> None:
    axes.grid(axis=along, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def short_count(value: float) -> str:
    """10000 -> 10k, 2000000 -> 2M, 1500 -> 1.5k."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
