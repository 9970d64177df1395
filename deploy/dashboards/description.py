"""What ``panels.toml`` may say; an unknown key is an error that names the panel's place in the file."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

DESCRIPTION = Path(__file__).with_name("panels.toml")

Color = Literal["green", "yellow", "orange", "red", "blue", "purple", "text"]
Kind = Literal["timeseries", "stat", "bargauge", "table", "heatmap"]
Columns = Annotated[int, Field(ge=1, le=24)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Query(_Table):
    """One expression; ``column``, ``unit`` and ``decimals`` are of a table's column."""

    expr: str
    legend: str = ""
    instant: bool = False
    column: str = ""
    unit: str = "none"
    decimals: int | None = None


class Panel(_Table):
    """One panel; width and height in Grafana's grid units, by kind where not given."""

    title: str
    type: Kind = "timeseries"
    shows: str
    good: str
    unit: str
    queries: tuple[Query, ...] = Field(min_length=1)
    width: Columns | None = None
    height: Annotated[int, Field(ge=2, le=24)] | None = None
    thresholds: tuple[tuple[float, Color], ...] = ()
    base: Color = "green"
    min: float | None = None
    max: float | None = None
    decimals: int | None = None
    stack: bool = False
    log: bool = False
    steps: bool = False
    labels: tuple[tuple[str, str], ...] = ()  # of a table: label, head of its column
    link: str | None = None  # of a table: uid of the dashboard that its first column opens


class Row(_Table):
    """Panels under a common title."""

    title: str
    panel: tuple[Panel, ...]


class Dashboard(_Table):
    """One file; ``jobs`` says whether it shows one job or several, ``ranks`` whether ranks can be picked."""

    file: str
    uid: str
    title: str
    description: str
    jobs: Literal["one", "many"]
    ranks: bool = False
    row: tuple[Row, ...]


class Annotation(_Table):
    """A mark in all panels of time: where ``expr`` is above 0, or at the times (ms) that are its values."""

    title: str
    color: Color
    expr: str
    value_is_time: bool = False


class Description(_Table):
    """All dashboards, and the marks that all of them share."""

    annotations: dict[str, Annotation]
    dashboard: tuple[Dashboard, ...]


def read_description(path: Path = DESCRIPTION) -> Description:
    """Raises tomllib.TOMLDecodeError or pydantic's ValidationError, both ValueErrors that name the place."""
    return Description.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
