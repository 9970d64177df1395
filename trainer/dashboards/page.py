"""A dashboard on one sheet: every panel at its place on the grid."""

import io
from collections.abc import Sequence
from datetime import UTC, datetime

from matplotlib.patches import Rectangle

from trainer.dashboards.answers import Mark, PanelAnswers
from trainer.dashboards.curves import draw_heatmap, draw_lines
from trainer.dashboards.figures import draw_bars, draw_number, draw_table
from trainer.dashboards.grafana_file import Dashboard, Panel
from trainer.dashboards.look import CARD, COLUMN, DPI, FRAME, GAP, GREY, INK, LINE, RED, Box, Sheet, color, printable
from trainer.dashboards.time_range import TimeRange
from trainer.report.drawing import drawing_style

DRAWN = ("timeseries", "heatmap", "stat", "bargauge", "table")
_HEADER, _MARGIN, _TITLE = 0.62, 0.12, 0.3


def draw_page(
    dashboard: Dashboard, found: Sequence[PanelAnswers], marks: Sequence[Mark], *, job: str | None, shown: TimeRange
) -> bytes:
    """The picture, as the bytes of a PNG."""
    lowest = max(panel.place[1] + panel.place[3] for panel in dashboard.panels)
    with drawing_style():
        sheet = Sheet(24 * COLUMN + 2 * _MARGIN, lowest * LINE + _HEADER + _MARGIN)
        _header(sheet, dashboard, marks, job, shown)
        for answers in found:
            box = _box(sheet, answers.panel)
            if answers.panel.kind == "row":
                sheet.fitted(box.left + 0.04, box.bottom + 0.12, answers.panel.title, box.width - 0.1, fontsize=12,
                             fontweight="bold", color=INK)  # fmt: skip
            else:
                _panel(sheet, box, answers, marks, shown)
        buffer = io.BytesIO()
        sheet.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Title": printable(dashboard.title)})
    return buffer.getvalue()


def _box(sheet: Sheet, panel: Panel) -> Box:
    x, y, width, height = panel.place
    top = sheet.height - _HEADER - y * LINE
    box = Box(_MARGIN + x * COLUMN, top - height * LINE, width * COLUMN, height * LINE)
    return box.inside(left=GAP / 2, right=GAP / 2, top=GAP / 2, bottom=GAP / 2)


def _header(sheet: Sheet, dashboard: Dashboard, marks: Sequence[Mark], job: str | None, shown: TimeRange) -> None:
    y = sheet.height - 0.3
    title = dashboard.title + (f": {job}" if job is not None else "")
    sheet.fitted(_MARGIN + 0.04, y, title, 0.5 * sheet.width, fontsize=16, fontweight="bold", color=INK, va="center")
    start, end = (datetime.fromtimestamp(moment, UTC) for moment in (shown.start, shown.end))
    until = f"{end:%H:%M:%S}" if start.date() == end.date() else f"{end:%Y-%m-%d %H:%M:%S}"
    text = f"{start:%Y-%m-%d %H:%M:%S} to {until} UTC, a point every {shown.step} s"
    right = sheet.width - _MARGIN - 0.04
    sheet.text(right, y + 0.1, text, fontsize=9.5, color=GREY, ha="right", va="center")
    for mark in reversed(marks):
        moments = len(mark.moments)
        name = f"┆ {mark.annotation.name}" + (f" ({moments})" if moments > 1 else "")
        drawn = sheet.text(
            right, y - 0.12, name, fontsize=9, color=color(mark.annotation.color), ha="right", va="center"
        )
        right -= sheet.text_width(drawn) + 0.2


def _panel(sheet: Sheet, box: Box, answers: PanelAnswers, marks: Sequence[Mark], shown: TimeRange) -> None:
    corner = (box.left / sheet.width, box.bottom / sheet.height)
    size = (box.width / sheet.width, box.height / sheet.height)
    sheet.figure.add_artist(Rectangle(corner, *size, facecolor=CARD, edgecolor=FRAME, linewidth=0.8, zorder=-1))
    sheet.fitted(box.left + 0.12, box.top - 0.17, answers.panel.title, box.width - 0.24, fontsize=10, color=INK,
                 fontweight="bold", va="center")  # fmt: skip
    inner = box.inside(top=_TITLE)
    if answers.panel.kind not in DRAWN:
        _note(sheet, inner, f"panels of type {answers.panel.kind or '?'} are not drawn here", GREY)
    elif answers.problem:
        _note(sheet, inner, answers.problem, RED)
    elif not answers.series:
        _note(sheet, inner, "no data", GREY)
    elif answers.panel.kind == "timeseries":
        draw_lines(sheet, inner, answers, marks, shown)
    elif answers.panel.kind == "heatmap":
        draw_heatmap(sheet, inner, answers, marks, shown)
    elif answers.panel.kind == "stat":
        draw_number(sheet, inner, answers)
    elif answers.panel.kind == "bargauge":
        draw_bars(sheet, inner, answers)
    else:
        draw_table(sheet, inner, answers)


def _note(sheet: Sheet, box: Box, text: str, shade: str) -> None:
    x, y = box.left + box.width / 2, box.bottom + box.height / 2
    sheet.fitted(x, y, text, box.width - 0.3, fontsize=9.5, color=shade, ha="center", va="center")
