"""How charts look, and how a figure becomes a picture inside the page.

Figures are made without pyplot, so nothing is shared with a notebook or a test that draws at the same time. They
become SVG inside ``<img>``: sharp on paper and on screen, and a browser runs nothing that such an image holds.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from trainer.report.thinning import Curve

# Okabe and Ito's palette: told apart with every common kind of colour blindness. Line styles repeat the message.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#5F6B76",
)  # fmt: skip
INK = "#22282E"
SERIES = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY, GREY)
DASHES = ("-", "--", "-.", ":")

_LONGEST_LABEL = 32
_STYLE: Any = {  # matplotlib's stubs spell out every key
    "svg.fonttype": "path",
    "svg.hashsalt": "pfc",  # same run, same bytes
    "text.parse_math": False,  # a set called "$x" is a name, not a formula
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 9.5,
    "axes.edgecolor": "#9AA4AE",
    "axes.labelcolor": "#38424C",
    "axes.titlesize": 9.5,
    "axes.titlecolor": "#38424C",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E7EB",
    "grid.linewidth": 0.8,
    "xtick.color": "#5F6B76",
    "ytick.color": "#5F6B76",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.5,
    "path.simplify": True,
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A chart of the page: a ``data:`` address, what a screen reader says, and the words around it."""

    title: str
    source: str
    alt: str
    caption: str = ""


@contextmanager
def drawing_style() -> Iterator[None]:
    """The style of all charts, for as long as the figures are made and saved."""
    with matplotlib.rc_context(_STYLE):
        yield


def new_figure(height: float = 3.3, *, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure 6.8 inches wide with ``panels`` axes above each other that share the x axis."""
    figure = Figure(figsize=(6.8, height), layout="constrained", facecolor="none")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    return figure, list(axes)


def to_source(figure: Figure) -> str:
    """The figure as a ``data:image/svg+xml`` address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def label(name: str) -> str:
    """A name fit for a chart: the font's letters only, short, and without the leading underscore that makes
    matplotlib leave an entry out of the legend.
    """
    text = "".join(letter if " " <= letter <= "~" else "?" for letter in name).lstrip("_ ")
    return (text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 3] + "...") or "?"


def _step_tick(value: float, _position: object) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            divisor = 1e3 if unit == "k" else size
            return f"{value / divisor:g}{unit}"
    return f"{value:g}"


def step_axis(axes: Axes) -> None:
    """Name the x axis and write its ticks short; call it when the curves are drawn."""
    axes.set_xlabel("step")
    low, high = axes.get_xlim()
    if high - low < 2:  # one point alone: no ticks at fractions of a step
        axes.set_xlim((low + high) / 2 - 1, (low + high) / 2 + 1)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_step_tick))


def log_axis(axis: Axis) -> None:
    """Make an axis logarithmic, with plain numbers as ticks: the style reads no formulas such as 10^-3."""
    axes = axis.axes
    if axis is axes.xaxis:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
    else:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
    narrow = high < 20 * low  # too few powers of ten to read a value by
    axis.set_major_locator(MaxNLocator(nbins=4) if narrow else LogLocator(base=10, numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _position: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plot(axes: Axes, curve: Curve, name: str, color: str, dashes: str = "-", **line: Any) -> bool:
    """Draw a curve, with the span of each bin behind it where it was thinned; a few points get markers, so that
    one alone can be seen. Tells whether there was anything to draw.
    """
    if not curve.x.size:
        return False
    marker = "o" if curve.x.size < 12 else ""
    if curve.thinned:
        axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.16, linewidth=0)
    axes.plot(curve.x, curve.mean, dashes, color=color, label=label(name), marker=marker, markersize=3.5, **line)
    return True


def legend(axes: Axes, **options: Any) -> None:
    """A legend above the plot, if there is anything to explain."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "ncols": 4, "borderaxespad": 0.2}
        axes.legend(handles=handles, labels=labels, **(place | options))
