"""What Prometheus answers to the expressions of a dashboard."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from trainer.dashboards.grafana_file import Annotation, Dashboard, Panel, Target
from trainer.dashboards.prometheus import PrometheusClient, QueryRefusedError, Series
from trainer.dashboards.time_range import TimeRange
from trainer.dashboards.variables import UnknownVariableError, substitute

_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True)
class Answer:
    """The series of one expression, with the names that its legend gives them."""

    target: Target
    series: list[tuple[str, Series]]


@dataclass(frozen=True)
class PanelAnswers:
    """All of a panel; ``problem`` is why one of its expressions has none."""

    panel: Panel
    answers: list[Answer] = field(default_factory=list)
    problem: str = ""

    @property
    def series(self) -> list[tuple[str, Series]]:
        """With at least one value that is a number."""
        return [(name, one) for answer in self.answers for name, one in answer.series if np.isfinite(one.values).any()]


@dataclass(frozen=True)
class Mark:
    """Moments of one annotation, seconds since 1970."""

    annotation: Annotation
    moments: list[float]


def panel_answers(
    panel: Panel, values: Mapping[str, str], *, client: PrometheusClient, shown: TimeRange, last: float
) -> PanelAnswers:
    """Ask all of a panel; what is asked at one moment is asked at ``last``. A refused expression is its problem."""
    found, problem = [], ""
    for target in panel.targets:
        try:
            expression = substitute(target.expr, values)
            if target.instant:
                series = client.at(expression, last)
            else:
                series = client.over_time(expression, start=shown.start, end=shown.end, step=shown.step)
        except (QueryRefusedError, UnknownVariableError) as error:
            problem = f"{target.ref}: {error}"
            continue
        named = [(_name(target, each.labels), each) for each in series]
        found.append(Answer(target, sorted(named, key=lambda one: _natural(one[0]))))
    return PanelAnswers(panel, found, problem)


def marks(dashboard: Dashboard, values: Mapping[str, str], *, client: PrometheusClient, shown: TimeRange) -> list[Mark]:
    """Those annotations of a dashboard that have moments in the range."""
    found = []
    for annotation in dashboard.annotations:
        try:
            expression = substitute(annotation.expr, values)
            series = client.over_time(expression, start=shown.start, end=shown.end, step=shown.step)
        except (QueryRefusedError, UnknownVariableError):
            continue
        moments = sorted({moment for each in series for moment in _moments(annotation, each, shown)})
        if moments:
            found.append(Mark(annotation, moments))
    return found


def _moments(annotation: Annotation, series: Series, shown: TimeRange) -> Iterator[float]:
    if annotation.value_is_time:
        yield from (float(v) / 1000 for v in series.values if shown.start <= v / 1000 <= shown.end)
        return
    previous = -np.inf
    for moment, value in zip(series.times, series.values, strict=True):
        if value > 0:
            if moment - previous > 1.5 * shown.step:  # the beginning of a stretch stands for all of it
                yield float(moment)
            previous = moment


def _name(target: Target, labels: Mapping[str, str]) -> str:
    if target.legend and target.legend != "__auto":
        return _LABEL.sub(lambda use: labels.get(use[1], ""), target.legend)
    own = ", ".join(f'{key}="{value}"' for key, value in sorted(labels.items()) if key != "__name__")
    return f"{{{own}}}" if own else target.expr


def _natural(name: str) -> list[tuple[int, float, str]]:
    """Rank 10 comes after rank 9, and 95% after 50%."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(0, float(part), "") if number % 2 else (1, 0.0, part) for number, part in enumerate(parts)]
