"""A dashboard as Grafana exports it, reduced to what a picture needs; what is missing or odd gets defaults."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError

# Beside this package in a checkout and in an installation alike; it is data here, nothing of it is imported.
SHIPPED = Path(__file__).parents[2] / "deploy" / "dashboards"

_COLUMNS, _TALLEST_PANEL, _TALLEST_PAGE = 24, 60, 1000
_SAME_AS = {"graph": "timeseries", "gauge": "stat", "table-old": "table", "singlestat": "stat"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """One expression of a panel."""

    ref: str
    expr: str
    legend: str
    instant: bool


@dataclass(frozen=True)
class Format:
    """How a value is written."""

    unit: str = "none"
    decimals: int | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A panel and its place (x, y, width, height) on the grid; ``kind`` is Grafana's name of its type."""

    title: str
    kind: str
    place: tuple[int, int, int, int]
    targets: tuple[Target, ...] = ()
    format: Format = Format()
    low: float | None = None
    high: float | None = None
    base: str = "green"
    thresholds: tuple[tuple[float, str], ...] = ()
    threshold_lines: bool = False
    color: str | None = None  # None: by thresholds
    stack: bool = False
    log: bool = False
    steps: bool = False
    columns: dict[str, Format] = field(default_factory=dict)  # of a table, by head
    heads: dict[str, str] = field(default_factory=dict)  # label or "Value #A" -> head, in the table's order
    hidden: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Annotation:
    """Marks in time: where ``expr`` is above 0, or at its values, which are milliseconds since 1970."""

    name: str
    color: str
    expr: str
    value_is_time: bool


@dataclass(frozen=True)
class Variable:
    """A variable of a dashboard; ``current`` is what was picked when it was saved."""

    name: str
    kind: str
    query: str
    several: bool
    all_value: str | None
    current: tuple[str, ...]


@dataclass(frozen=True)
class Dashboard:
    """One file; ``name`` is its name without .json."""

    name: str
    uid: str
    title: str
    panels: tuple[Panel, ...]
    annotations: tuple[Annotation, ...]
    variables: tuple[Variable, ...]


def read_dashboards(folder: Path, wanted: list[str]) -> list[Dashboard]:
    """Those of a folder that ``wanted`` names by file or uid, in that order; all, sorted, when it names none.

    Raises ConfigError for a folder without dashboards, a file that is none, and a name that is not there.
    """
    try:
        paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    except OSError as error:
        raise ConfigError(f"--dashboards {folder}: {error.strerror}") from None
    if not paths:
        raise ConfigError(f"--dashboards {folder}: no folder with Grafana's .json files")
    found = [read_dashboard(path) for path in paths]
    if not wanted:
        return found
    by_name = {dashboard.uid: dashboard for dashboard in found} | {dashboard.name: dashboard for dashboard in found}
    for name in wanted:
        if name not in by_name:
            there = ", ".join(dashboard.name for dashboard in found)
            raise ConfigError(f"--dashboard {name}: not in {folder}; there are {there}")
    return list({by_name[name].name: by_name[name] for name in wanted}.values())


def read_dashboard(path: Path) -> Dashboard:
    """Raises ConfigError for a file that cannot be read, is no JSON, or has no panels."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{path}: not JSON; export the dashboard from Grafana again") from None
    found = _table(read, "dashboard") or (read if isinstance(read, dict) else {})  # the HTTP interface wraps it
    panels = tuple(_panels(found))
    if not panels:
        raise ConfigError(f"{path}: no dashboard of Grafana, or one without panels")
    if max(panel.place[1] + panel.place[3] for panel in panels) > _TALLEST_PAGE:
        raise ConfigError(f"{path}: taller than {_TALLEST_PAGE} grid units; divide it")
    return Dashboard(
        name=path.stem,
        uid=_text(found, "uid"),
        title=_text(found, "title") or path.stem,
        panels=panels,
        annotations=tuple(_annotations(found)),
        variables=tuple(_variables(found)),
    )


def _panels(found: Json) -> Iterator[Panel]:
    below = 0
    for outer in _tables(found, "panels"):
        for each in (outer, *_tables(outer, "panels")):  # a collapsed row holds its panels
            panel = _panel(each, below)
            below = max(below, panel.place[1] + panel.place[3])
            yield panel


def _panel(found: Json, below: int) -> Panel:
    config = _table(found, "fieldConfig")
    defaults, custom = _table(config, "defaults"), _table(_table(config, "defaults"), "custom")
    color = _table(defaults, "color")
    base, thresholds = _thresholds(_table(defaults, "thresholds"))
    organize = _organize(found)
    kind = _text(found, "type")
    return Panel(
        title=_text(found, "title"),
        kind=_SAME_AS.get(kind, kind),
        place=_place(_table(found, "gridPos"), below),
        targets=tuple(
            Target(
                ref=_text(each, "refId") or chr(ord("A") + number % 26),
                expr=_text(each, "expr"),
                legend=_text(each, "legendFormat"),
                instant=each.get("instant") is True,
            )
            for number, each in enumerate(_tables(found, "targets"))
            if _text(each, "expr") and each.get("hide") is not True
        ),
        format=_format(defaults),
        low=_number(defaults, "min"),
        high=_number(defaults, "max"),
        base=base,
        thresholds=thresholds,
        threshold_lines=_text(_table(custom, "thresholdsStyle"), "mode") not in ("", "off"),
        color=_text(color, "fixedColor") or None if _text(color, "mode") == "fixed" else None,
        stack=_text(_table(custom, "stacking"), "mode") not in ("", "none"),
        log=_text(_table(custom, "scaleDistribution"), "type") == "log",
        steps=_text(custom, "lineInterpolation").startswith("step"),
        columns=dict(_columns(config)),
        heads={
            name: _text(_table(organize, "renameByName"), name) or name
            for name, _ in sorted(
                ((n, p) for n, p in _table(organize, "indexByName").items() if isinstance(p, int)), key=lambda i: i[1]
            )
        },
        hidden=frozenset(name for name, off in _table(organize, "excludeByName").items() if off),
    )


def _place(grid: Json, below: int) -> tuple[int, int, int, int]:
    def whole(key: str, default: int, low: int, high: int) -> int:
        value = _number(grid, key)
        return default if value is None else int(min(max(value, low), high))

    x = whole("x", 0, 0, _COLUMNS - 1)
    width = min(whole("w", 12, 1, _COLUMNS), _COLUMNS - x)
    return x, whole("y", below, 0, 10 * _TALLEST_PAGE), width, whole("h", 8, 1, _TALLEST_PANEL)


def _thresholds(found: Json) -> tuple[str, tuple[tuple[float, str], ...]]:
    base, steps = "green", []
    if _text(found, "mode") == "percentage":
        return base, ()
    for step in _tables(found, "steps"):
        value, color = _number(step, "value"), _text(step, "color") or "green"
        if value is None:
            base = color
        else:
            steps.append((value, color))
    return base, tuple(sorted(steps))


def _organize(found: Json) -> Json:
    for each in _tables(found, "transformations"):
        if _text(each, "id") == "organize":
            return _table(each, "options")
    return {}


def _columns(config: Json) -> Iterator[tuple[str, Format]]:
    for override in _tables(config, "overrides"):
        matcher = _table(override, "matcher")
        if _text(matcher, "id") == "byName":
            values = {_text(each, "id"): each.get("value") for each in _tables(override, "properties")}
            yield _text(matcher, "options"), _format(values)


def _format(found: Json) -> Format:
    decimals = _number(found, "decimals")
    return Format(_text(found, "unit") or "none", None if decimals is None else int(min(max(decimals, 0), 9)))


def _annotations(found: Json) -> Iterator[Annotation]:
    for each in _tables(_table(found, "annotations"), "list"):
        expr = _text(each, "expr") or _text(_table(each, "target"), "expr")
        if expr and each.get("enable") is not False:
            on = each.get("useValueForTime") in (True, "on")
            yield Annotation(_text(each, "name") or expr, _text(each, "iconColor") or "blue", expr, on)


def _variables(found: Json) -> Iterator[Variable]:
    for each in _tables(_table(found, "templating"), "list"):
        current = _table(each, "current").get("value")
        picked = current if isinstance(current, list) else [] if current is None else [current]
        yield Variable(
            name=_text(each, "name"),
            kind=_text(each, "type"),
            query=_text(each, "query") or _text(_table(each, "query"), "query"),
            several=each.get("multi") is True or each.get("includeAll") is True,
            all_value=_text(each, "allValue") or None,
            current=tuple(str(value) for value in picked),
        )


def _table(found: Any, key: str) -> Json:
    value = found.get(key) if isinstance(found, dict) else None
    return value if isinstance(value, dict) else {}


def _tables(found: Json, key: str) -> list[Json]:
    value = found.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(found: Json, key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _number(found: Json, key: str) -> float | None:
    value = found.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if is_number and value is not None else None
