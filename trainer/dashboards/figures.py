"""Panels of single values: one large number, bars, and tables."""

from typing import Any

import numpy as np

from trainer.dashboards.answers import Answer, PanelAnswers
from trainer.dashboards.grafana_file import Format
from trainer.dashboards.look import GREY, INK, PALE, Box, Sheet, color, threshold_color
from trainer.dashboards.prometheus import Series
from trainer.dashboards.units import value_text

_BAR, _TABLE_LINE = 0.2, 0.27


def draw_number(sheet: Sheet, box: Box, found: PanelAnswers) -> None:
    """The last value, in the colour of its threshold, above a line of its past; of several series side by side."""
    panel, series = found.panel, found.series[:4]
    width = box.width / len(series)
    for number, (name, one) in enumerate(series):
        part = Box(box.left + number * width, box.bottom, width, box.height)
        known = np.isfinite(one.values)
        value = float(one.values[known][-1])
        shade = color(panel.color) if panel.color else threshold_color(value, panel.base, panel.thresholds)
        if known.sum() > 1:
            axes = sheet.axes(Box(part.left, part.bottom, part.width, 0.38 * part.height))
            axes.axis("off")
            times, values = one.times[known], one.values[known]
            low, high = float(values.min()), float(values.max())
            margin = 0.1 * (high - low) or abs(high) or 1.0
            axes.set_ylim(low - margin, high + margin)
            axes.margins(x=0)
            axes.fill_between(times, low - margin, values, color=shade, alpha=0.12, linewidth=0)
            axes.plot(times, values, color=shade, linewidth=1.0)
        middle, size = part.left + part.width / 2, 22.0
        text = sheet.text(middle, part.bottom + 0.62 * part.height, value_text(value, panel.format), color=shade,
                          fontsize=size, ha="center", va="center", fontweight="bold")  # fmt: skip
        while sheet.text_width(text) > part.width - 0.3 and size > 8:
            size -= 1
            text.set_fontsize(size)
        if len(series) > 1:
            sheet.fitted(
                middle, part.top - 0.08, name, part.width - 0.1, fontsize=8, color=GREY, ha="center", va="center"
            )


def draw_bars(sheet: Sheet, box: Box, found: PanelAnswers) -> None:
    """The last value of each series as a bar; the longest ones where there is no room for all."""
    panel, inner = found.panel, box.inside(left=0.15, right=0.15, top=0.02, bottom=0.1)
    values = [(name, float(one.values[np.isfinite(one.values)][-1])) for name, one in found.series]
    room = max(1, int(inner.height / _BAR))
    hidden = len(values) - room + 1 if len(values) > room else 0
    if hidden:
        kept = {name for name, _ in sorted(values, key=lambda one: -one[1])[: len(values) - hidden]}
        values = [one for one in values if one[0] in kept]
    high = panel.high or max(max((value for _, value in values), default=0.0), 0.0) or 1.0
    low = panel.low or 0.0
    names = [sheet.fitted(inner.left, 0, name, 2.0, fontsize=8.5, color=INK, va="center") for name, _ in values]
    start = inner.left + max((sheet.text_width(each) for each in names), default=0.0) + 0.12
    length = inner.right - start - 0.85
    line = min(0.3, inner.height / max(1, len(values) + bool(hidden)))
    axes = sheet.axes(Box(0, 0, sheet.width, sheet.height))
    axes.set(xlim=(0, sheet.width), ylim=(0, sheet.height))
    axes.axis("off")
    for number, (name, (_, value)) in enumerate(zip(names, values, strict=True)):
        y = inner.top - (number + 0.5) * line
        name.set_y(y / sheet.height)
        shade = color(panel.color) if panel.color else threshold_color(value, panel.base, panel.thresholds)
        share = min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.0
        axes.barh(y, length, left=start, height=0.7 * line, color=PALE)
        axes.barh(y, share * length, left=start, height=0.7 * line, color=shade, alpha=0.85)
        sheet.text(inner.right, y, value_text(value, panel.format), fontsize=8.5, color=INK, ha="right", va="center")
    if hidden:
        y = inner.top - (len(values) + 0.5) * line
        sheet.text(inner.left, y, f"and {hidden} with less", fontsize=8, color=GREY, va="center")


def draw_table(sheet: Sheet, box: Box, found: PanelAnswers) -> None:
    """One line for each set of labels, one column for each label and each expression."""
    heads, lines = table_cells(found)
    inner = box.inside(left=0.15, right=0.15, top=0.02, bottom=0.08)
    room = max(1, int(inner.height / _TABLE_LINE) - 1)
    hidden = max(0, len(lines) - room)
    if hidden:
        lines = lines[: room - 1]
    longest = [max(len(text) for text in column) for column in zip(heads, *lines, strict=True)]
    shares = [min(max(length, 4), 28) for length in longest]
    x = inner.left
    style: dict[str, Any] = {"fontsize": 9, "va": "center"}
    for number, share in enumerate(shares):
        width = inner.width * share / sum(shares)
        sheet.fitted(
            x, inner.top - 0.5 * _TABLE_LINE, heads[number], width - 0.05, color=GREY, fontweight="bold", **style
        )
        for at, line in enumerate(lines, start=1):
            sheet.fitted(x, inner.top - (at + 0.5) * _TABLE_LINE, line[number], width - 0.08, color=INK, **style)
        x += width
    axes = sheet.axes(Box(0, 0, sheet.width, sheet.height))
    axes.set(xlim=(0, sheet.width), ylim=(0, sheet.height))
    axes.axis("off")
    for at in range(1, len(lines) + 1):
        axes.hlines(inner.top - at * _TABLE_LINE, inner.left, inner.right, color=PALE, linewidth=1)
    if hidden:
        y = inner.top - (len(lines) + 1.5) * _TABLE_LINE
        sheet.text(inner.left, y, f"and {hidden + 1} more", color=GREY, fontsize=8.5, va="center")


def table_cells(found: PanelAnswers) -> tuple[list[str], list[list[str]]]:
    """Heads and lines, as Grafana's transformations merge and organize have them."""
    panel = found.panel
    heads = {name: head for name, head in panel.heads.items() if name not in panel.hidden}
    if not heads:  # none organized: all labels, then the values
        there = {label for answer in found.answers for _, one in answer.series for label in one.labels}
        heads = {label: label for label in sorted(there - {"__name__"})}
        heads |= {f"Value #{answer.target.ref}": answer.target.ref for answer in found.answers}
    lines: list[dict[str, str]] = []
    for answer in found.answers:
        for labels, cell in _cells(answer, panel.columns, heads, panel.format):
            fits = [line for line in lines if all(line.get(key, value) == value for key, value in labels.items())]
            if not fits:
                fits = [dict(labels)]
                lines += fits
            for line in fits:
                line |= labels | cell
    return list(heads.values()), [[line.get(name, "") or "-" for name in heads] for line in lines]


def _cells(
    answer: Answer, columns: dict[str, Format], heads: dict[str, str], default: Format
) -> list[tuple[dict[str, str], dict[str, str]]]:
    name = f"Value #{answer.target.ref}"
    form = columns.get(heads.get(name, ""), default)

    def cell(one: Series) -> dict[str, str]:
        return {name: value_text(float(one.values[-1]), form)} if one.values.size else {}

    return [({k: v for k, v in one.labels.items() if k != "__name__"}, cell(one)) for _, one in answer.series]
