"""Measures, colours and text of the pictures; the palette is that of the report's charts."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text

from trainer.report.drawing import BLUE, DASHES, GREY, INK, ORANGE, RED, SERIES

COLUMN, LINE = 0.72, 0.36  # inches of a grid column and of a grid line
GAP = 0.06
PAPER, CARD, FRAME, PALE = "#F3F5F7", "#FFFFFF", "#DDE2E7", "#EDF0F3"
DPI = 100

_COLORS = {
    "green": "#1E8449", "yellow": "#B7860B", "orange": ORANGE, "red": "#C0392B", "blue": BLUE,
    "purple": "#7D3C98", "text": GREY, "transparent": GREY,
}  # fmt: skip
_SHADES = ("super-light-", "light-", "semi-dark-", "dark-")


@dataclass(frozen=True)
class Box:
    """A rectangle in inches from the figure's lower left corner."""

    left: float
    bottom: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.left + self.width

    @property
    def top(self) -> float:
        """Its upper edge."""
        return self.bottom + self.height

    def inside(self, *, left: float = 0.0, bottom: float = 0.0, right: float = 0.0, top: float = 0.0) -> "Box":
        """What is left without these margins."""
        width, height = self.width - left - right, self.height - bottom - top
        return Box(self.left + left, self.bottom + bottom, max(width, 0.1), max(height, 0.1))


class Sheet:
    """A figure on which text can be measured before it is placed."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
        canvas: Any = FigureCanvasAgg(self.figure)
        self._renderer = canvas.get_renderer()
        self.width, self.height = width, height

    def axes(self, box: Box, **options: Any) -> Axes:
        """Axes that fill a box."""
        size = (box.left / self.width, box.bottom / self.height, box.width / self.width, box.height / self.height)
        return self.figure.add_axes(size, **options)

    def move(self, axes: Axes, box: Box) -> None:
        """Put axes into another box."""
        axes.set_position(
            (box.left / self.width, box.bottom / self.height, box.width / self.width, box.height / self.height)
        )

    def text(self, x: float, y: float, text: str, **options: Any) -> Text:
        """Text at a place in inches, at its left end of the baseline unless the options say otherwise."""
        return self.figure.text(x / self.width, y / self.height, printable(text), **options)

    def text_width(self, text: Text) -> float:
        """In inches."""
        return float(text.get_window_extent(self._renderer).width) / DPI

    def fitted(self, x: float, y: float, text: str, width: float, **options: Any) -> Text:
        """Text cut so that it is no wider than ``width`` inches."""
        drawn, shown = self.text(x, y, text, **options), printable(text)
        while self.text_width(drawn) > width and len(shown) > 1:
            shown = shown[: max(1, min(len(shown) - 1, int(len(shown) * width / self.text_width(drawn))))]
            drawn.set_text(shown.rstrip() + "...")
        return drawn

    def labels_width(self, axes: Axes) -> float:
        """Inches that the tick labels of the y axis take."""
        texts = [each for each in axes.get_yticklabels() if each.get_text()]
        return max((self.text_width(each) for each in texts), default=0.0)


def printable(text: str) -> str:
    """On one line, without what the font has no letter for."""
    return "".join(letter if ord(letter) in _letters() else "?" for letter in " ".join(text.split()))


@cache
def _letters() -> frozenset[int]:
    font: Any = get_font(findfont("DejaVu Sans"))
    return frozenset(font.get_charmap())


def color(name: str) -> str:
    """Of Grafana's name or of a #rrggbb, fit for a white ground."""
    for shade in _SHADES:
        name = name.removeprefix(shade)
    if name in _COLORS:
        return _COLORS[name]
    return name if name.startswith("#") and is_color_like(name) else GREY


def series_style(number: int) -> tuple[str, str]:
    """Colour and dashes of the n-th line."""
    return SERIES[number % len(SERIES)], DASHES[number // len(SERIES) % len(DASHES)]


def threshold_color(value: float, base: str, thresholds: tuple[tuple[float, str], ...]) -> str:
    """The colour of the last threshold that a value has reached."""
    reached = [name for limit, name in thresholds if value >= limit]
    return color(reached[-1] if reached else base)


__all__ = [
    "CARD", "COLUMN", "DPI", "FRAME", "GAP", "GREY", "INK", "LINE", "PALE", "PAPER", "RED",
    "Box", "Sheet", "color", "printable", "series_style", "threshold_color",
]  # fmt: skip
