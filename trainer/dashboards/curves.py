"""Panels of time: lines, stacks and heat maps, with thresholds, marks and a legend below.

P: points in time. K: buckets.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib.dates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from trainer.dashboards.answers import Mark, PanelAnswers
from trainer.dashboards.grafana_file import Format
from trainer.dashboards.look import GAP, GREY, INK, Box, Sheet, color, series_style
from trainer.dashboards.prometheus import Series
from trainer.dashboards.time_range import TimeRange
from trainer.dashboards.units import axis_ticks, tick_writer, value_text

Values = NDArray[np.float64]

_LEGEND_LINE, _MOST_LEGEND_LINES = 0.19, 3
_MANY_MARKS = 30


def draw_lines(sheet: Sheet, box: Box, found: PanelAnswers, marks: Sequence[Mark], shown: TimeRange) -> None:
    """One line a series, or layers on each other."""
    panel, series = found.panel, found.series
    last = {name: value_text(float(one.values[np.isfinite(one.values)][-1]), panel.format) for name, one in series}
    entries = [(name, last[name], *series_style(number)) for number, (name, _) in enumerate(series)]
    lines = _legend(sheet, box, entries)
    axes = sheet.axes(box.inside(left=0.6, right=0.12, top=0.05, bottom=0.28 + lines * _LEGEND_LINE + GAP))
    _ground(axes)
    x = np.arange(shown.start, shown.end + 0.5 * shown.step, shown.step)
    columns = [_on_grid(one, x, shown) for _, one in series]
    if panel.stack:
        low, high = _layers(axes, x, columns)
    else:
        low, high = _lines(axes, x, columns, steps=panel.steps, log=panel.log)
    low, high = _limits(axes, found, low, high)
    _thresholds(axes, found, low, high)
    _marks(axes, marks)
    whole = all(bool((column[np.isfinite(column)] % 1 == 0).all()) for column in columns)
    _value_axis(axes, panel.format, low, high, log=panel.log, whole=whole)
    _time_axis(axes, shown)
    _make_room(sheet, axes, box, lines)


def draw_heatmap(sheet: Sheet, box: Box, found: PanelAnswers, marks: Sequence[Mark], shown: TimeRange) -> None:
    """How many fell into each bucket of a histogram (series of label ``le``, cumulative) over time."""
    axes = sheet.axes(box.inside(left=0.6, right=0.12, top=0.05, bottom=0.28 + GAP))
    _ground(axes)
    x = np.arange(shown.start, shown.end + 0.5 * shown.step, shown.step)
    bounds, counts = _buckets([one for _, one in found.series], x, shown)
    edges = np.append(x, x[-1] + shown.step) - 0.5 * shown.step
    axes.pcolormesh(edges, np.arange(len(bounds) + 1), np.ma.masked_less_equal(counts, 0), cmap="Blues", vmin=0)
    every = max(1, -(-len(bounds) // 7))
    places = list(range(0, len(bounds), every))
    texts = ["more" if np.isinf(bounds[place]) else value_text(bounds[place], found.panel.format) for place in places]
    axes.set_yticks([place + 1 for place in places], texts)
    axes.set_ylim(0, len(bounds))
    axes.grid(False)
    _marks(axes, marks)
    _time_axis(axes, shown)
    _make_room(sheet, axes, box, 0)


def _ground(axes: Axes) -> None:
    axes.set_facecolor("none")
    axes.tick_params(labelsize=8, length=2.5, pad=2)
    axes.grid(axis="y")
    axes.grid(False, axis="x")


def _on_grid(series: Series, x: Values, shown: TimeRange) -> Values:
    """[P]: NaN where there is no value, so that gaps stay gaps."""
    column = np.full(x.size, np.nan)
    places = np.rint((series.times - shown.start) / shown.step).astype(np.int64)
    inside = (places >= 0) & (places < x.size)
    column[places[inside]] = np.where(np.isfinite(series.values[inside]), series.values[inside], np.nan)
    return column


def _lines(axes: Axes, x: Values, columns: list[Values], *, steps: bool, log: bool) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for number, column in enumerate(columns):
        shade, dashes = series_style(number)
        if log:
            column = np.where(column > 0, column, np.nan)
        known = np.isfinite(column)
        if not known.any():
            continue
        low, high = min(low, float(column[known].min())), max(high, float(column[known].max()))
        axes.plot(x, column, dashes, color=shade, linewidth=1.4, drawstyle="steps-post" if steps else "default")
        alone = known & ~np.roll(known, 1) & ~np.roll(known, -1) if known.sum() > 1 else known
        axes.plot(x[alone], column[alone], "o", color=shade, markersize=3)
    return low, high


def _layers(axes: Axes, x: Values, columns: list[Values]) -> tuple[float, float]:
    below = np.zeros(x.size)
    for number, column in enumerate(columns):
        shade, _ = series_style(number)
        above = below + np.nan_to_num(column)
        axes.fill_between(x, below, above, where=np.isfinite(column), color=shade, alpha=0.35, linewidth=0)
        axes.plot(x, np.where(np.isfinite(column), above, np.nan), color=shade, linewidth=1.2)
        below = above
    return 0.0, float(below.max(initial=0.0))


def _limits(axes: Axes, found: PanelAnswers, low: float, high: float) -> tuple[float, float]:
    """Set and return the ends of the value axis: the data, near thresholds, the panel's bounds, and a margin."""
    panel = found.panel
    limits = [limit for limit, _ in panel.thresholds] if panel.threshold_lines else []
    if low > high:  # a logarithmic axis and nothing above 0
        low, high = 0.1, 10.0
    if panel.log:
        low, high = low / 1.2, high * 1.2
        axes.set_yscale("log")
        axes.set_ylim(low, high)
        return low, high
    if panel.low is not None:
        low = min(low, panel.low)
    span = high - low or abs(high)
    if not span:  # nothing but zeros
        high, span = (max(limits), 0.0) if limits and max(limits) > 0 else (1.0, 0.0)
    high = max([high, *(limit for limit in limits if limit <= high + 2 * span)])  # near enough to be worth the room
    margin = 0.06 * (high - low) or 0.1 * abs(high)
    low = low - margin if panel.low is None or low < panel.low else panel.low
    high = high + margin if panel.high is None or high > panel.high else panel.high
    # A line along a bound is seen whole.
    low, high = low - 0.02 * (high - low), high + 0.02 * (high - low)
    axes.set_ylim(low, high)
    return low, high


def _thresholds(axes: Axes, found: PanelAnswers, low: float, high: float) -> None:
    for limit, name in found.panel.thresholds if found.panel.threshold_lines else ():
        if low <= limit <= high:
            axes.axhline(limit, color=color(name), linewidth=1.0, linestyle=(0, (4, 3)), alpha=0.9)


def _marks(axes: Axes, marks: Sequence[Mark]) -> None:
    for mark in marks:
        many = len(mark.moments) > _MANY_MARKS
        for moment in mark.moments:
            axes.axvline(
                moment,
                color=color(mark.annotation.color),
                linewidth=0.6 if many else 0.9,
                linestyle=(0, (2, 2)),
                alpha=0.25 if many else 0.6,
                zorder=1,
            )


def _value_axis(axes: Axes, form: Format, low: float, high: float, *, log: bool, whole: bool) -> None:
    if log and high > 20 * low:
        axes.yaxis.set_major_locator(LogLocator(base=10, numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(tick_writer(form)))
    else:
        ticks = axis_ticks(low, high, form, whole=whole)
        axes.set_yticks(ticks.places, ticks.texts)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())


def _time_axis(axes: Axes, shown: TimeRange) -> None:
    """Round times of day, or days where the range is long, in UTC."""
    dates: Any = matplotlib.dates  # untyped
    locator = dates.AutoDateLocator(tz=UTC, minticks=3, maxticks=6)
    first, last = (datetime.fromtimestamp(moment, UTC) for moment in (shown.start, shown.end))
    # matplotlib counts days since 1970.
    places = [86_400 * float(place) for place in locator.tick_values(first, last)]
    places = [place for place in places if shown.start <= place <= shown.end]
    apart = places[1] - places[0] if len(places) > 1 else shown.end - shown.start
    form = "%H:%M:%S" if apart < 59 else "%H:%M" if shown.end - shown.start < 86_400 else "%b %d %H:%M"
    form = form if apart < 86_000 else "%b %d" if apart < 300 * 86_400 else "%Y"
    axes.set_xlim(shown.start, shown.end)
    axes.set_xticks(places, [f"{datetime.fromtimestamp(place, UTC):{form}}" for place in places])


def _make_room(sheet: Sheet, axes: Axes, box: Box, legend_lines: int) -> None:
    left = sheet.labels_width(axes) + 0.14
    sheet.move(axes, box.inside(left=left, right=0.14, top=0.05, bottom=0.28 + legend_lines * _LEGEND_LINE + GAP))


def _legend(sheet: Sheet, box: Box, entries: list[tuple[str, str, str, str]]) -> int:
    """Name and last value of each line, flowing over at most a few lines; how many lines it took."""
    left, right = box.left + 0.12, box.right - 0.1
    x, line, texts, hidden = left, 0, [], 0
    for number, (name, value, shade, dashes) in enumerate(entries):
        text = sheet.fitted(x + 0.25, 0, f"{name}: {value}", box.width - 0.6, fontsize=8, color=INK, va="center")
        width = sheet.text_width(text) + 0.25
        room = right - (0.7 if line == _MOST_LEGEND_LINES - 1 and number < len(entries) - 1 else 0.0)
        if x > left and x + width > room:
            x, line = left, line + 1
        if line == _MOST_LEGEND_LINES:
            text.remove()
            hidden = len(entries) - number
            break
        texts.append((text, x, line, shade, dashes))
        x += width + 0.18
    lines = min(line + 1, _MOST_LEGEND_LINES) if entries else 0
    for text, start, at, shade, dashes in texts:
        y = box.bottom + GAP + (lines - 1 - at + 0.5) * _LEGEND_LINE
        text.set_position(((start + 0.25) / sheet.width, y / sheet.height))
        across = [(start + 0.02) / sheet.width, (start + 0.2) / sheet.width]
        style: dict[str, Any] = {"color": shade, "linestyle": dashes, "linewidth": 1.8}
        sheet.figure.add_artist(Line2D(across, [y / sheet.height] * 2, **style))
    if hidden:
        sheet.text(right, box.bottom + GAP + 0.5 * _LEGEND_LINE, f"+ {hidden} more", fontsize=8, color=GREY,
                   ha="right", va="center")  # fmt: skip
    return lines


def _buckets(series: list[Series], x: Values, shown: TimeRange) -> tuple[list[float], Values]:
    """Upper bounds [K] and counts [K, P], without buckets beyond those that anything fell into."""
    by_bound = {float(one.labels.get("le", "inf")): np.nan_to_num(_on_grid(one, x, shown)) for one in series}
    bounds = sorted(by_bound)
    cumulative = np.stack([by_bound[bound] for bound in bounds])
    counts = np.diff(cumulative, axis=0, prepend=np.zeros((1, x.size)))
    used = np.flatnonzero((counts > 1e-9).any(axis=1))
    first, last = (max(used[0] - 1, 0), min(used[-1] + 2, len(bounds))) if used.size else (0, len(bounds))
    return bounds[first:last], counts[first:last]
