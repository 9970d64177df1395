"""Places on Grafana's grid of 24 columns: panels flow from left to right, a row's title begins a new line."""

from collections.abc import Iterator

from deploy.dashboards.description import Kind, Panel

COLUMNS = 24
Place = dict[str, int]  # h, w, x, y

_SIZE: dict[Kind, tuple[int, int]] = {
    "timeseries": (8, 8),
    "heatmap": (8, 8),
    "stat": (4, 4),
    "bargauge": (8, 8),
    "table": (24, 8),
}


def size(panel: Panel) -> tuple[int, int]:
    """Width and height."""
    width, height = _SIZE[panel.type]
    return panel.width or width, panel.height or height


class Flow:
    """Hands out places from top to bottom; no two overlap."""

    def __init__(self) -> None:
        self._y = 0

    def title(self) -> Place:
        """The place of a row's title."""
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": self._y}
        self._y += 1
        return place

    def panels(self, sizes: list[tuple[int, int]]) -> Iterator[Place]:
        """Places of the panels under a title; each line is as high as its highest panel."""
        x = line = 0
        for width, height in sizes:
            if x + width > COLUMNS:
                self._y, x, line = self._y + line, 0, 0
            yield {"h": height, "w": width, "x": x, "y": self._y}
            x, line = x + width, max(line, height)
        self._y += line
