"""Pictures of evaluation protocols: ROC, DET, and rank rates over the number of distractors, as PNG and SVG."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trainer.evaluation.protocol_result import ErrorCurve
from trainer.report.drawing import DASHES, SERIES, drawing_style, label, legend, log_axis, new_figure

_WORDS = {
    "verification": ("false accept rate", "true accept rate (%)", "false reject rate"),
    "open set": ("false positive identification rate", "true positive identification rate (%)",
                 "false negative identification rate"),
}  # fmt: skip


def protocol_pictures(curves: Sequence[ErrorCurve]) -> dict[str, bytes]:
    """roc and det of "verification" and "open set" curves, distractors of "sizes": each a .png and a .svg."""
    pictures: dict[str, bytes] = {}
    with drawing_style():
        for kind in ("verification", "open set"):
            rates = [curve for curve in curves if curve.kind == kind and (curve.x > 0).any()]
            if rates:
                pictures |= _files("roc", _roc(rates)) | _files("det", _det(rates))
        sizes = [curve for curve in curves if curve.kind == "sizes"]
        if sizes:
            pictures |= _files("distractors", _sizes(sizes))
    return pictures


def _roc(curves: Sequence[ErrorCurve]) -> Figure:
    figure, (axes,) = new_figure()
    floor = min(float(curve.x[curve.x > 0].min()) for curve in curves)
    for curve, look in _looks(curves):
        shown = curve.x > 0
        axes.plot(curve.x[shown], curve.y[shown] * 100, drawstyle="steps-post", **look)
    axes.set_xlim(min(floor, 0.1), 1.0)
    log_axis(axes.xaxis)
    axes.set_ylim(0, 101)
    axes.set_xlabel(f"{_WORDS[curves[0].kind][0]} (log)")
    axes.set_ylabel(_WORDS[curves[0].kind][1])
    legend(axes)
    return figure


def _det(curves: Sequence[ErrorCurve]) -> Figure:
    """Both errors on logarithmic axes; where there are none any more, the curve leaves the picture."""
    figure, (axes,) = new_figure(4.2)
    lowest = []
    for curve, look in _looks(curves):
        miss = 1 - curve.y
        shown = (curve.x > 0) & (miss > 1e-12)
        axes.plot(curve.x[shown], miss[shown], drawstyle="steps-post", **look)
        lowest += [miss[shown].min()] if shown.any() else []
    axes.set_xlim(min(0.1, *(float(curve.x[curve.x > 0].min()) for curve in curves)), 1.0)
    axes.set_ylim(min([0.1, *lowest]) / 1.2, 1.05)
    log_axis(axes.xaxis)
    log_axis(axes.yaxis)
    axes.set_xlabel(f"{_WORDS[curves[0].kind][0]} (log)")
    axes.set_ylabel(f"{_WORDS[curves[0].kind][2]} (log)")
    legend(axes)
    return figure


def _sizes(curves: Sequence[ErrorCurve]) -> Figure:
    figure, (axes,) = new_figure()
    for curve, look in _looks(curves):
        axes.plot(curve.x, curve.y * 100, marker="o", markersize=4, **look)
    axes.set_xlim(float(curves[0].x.min()) / 1.5, float(curves[0].x.max()) * 1.5)
    log_axis(axes.xaxis)
    _room(axes, np.concatenate([curve.y for curve in curves]) * 100)
    axes.set_xlabel("distractors (log)")
    axes.set_ylabel("found (%)")
    legend(axes)
    return figure


def _room(axes: Axes, values: Any) -> None:
    low, high = float(values.min()), float(values.max())
    margin = max(1.0, 0.08 * (high - low))
    axes.set_ylim(max(0.0, low - margin), min(101.0, high + margin))


def _looks(curves: Sequence[ErrorCurve]) -> list[tuple[ErrorCurve, dict[str, Any]]]:
    return [
        (curve, {"color": SERIES[n % len(SERIES)], "linestyle": DASHES[n % len(DASHES)], "label": label(curve.name)})
        for n, curve in enumerate(curves)
    ]


def _files(name: str, figure: Figure) -> dict[str, bytes]:
    found = {}
    for kind, options in (("png", {"dpi": 130}), ("svg", {"metadata": {"Date": None, "Creator": None}})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, facecolor="white", **options)
        found[f"{name}.{kind}"] = buffer.getvalue()
    return found
