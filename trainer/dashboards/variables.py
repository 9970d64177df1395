"""What stands in a dashboard's expressions for its variables: the job, the ranks, and what Grafana itself supplies."""

import re
from collections.abc import Mapping

from trainer.dashboards.grafana_file import Dashboard, Variable
from trainer.dashboards.prometheus import PrometheusClient
from trainer.dashboards.time_range import TimeRange
from trainer.errors import ConfigError

ALL = "$__all"
_MOST_NAMES = 20
_NAME = r"([A-Za-z_]\w*)"  # $1 belongs to PromQL's label_replace
_USE = re.compile(rf"\$\{{{_NAME}(?::\w+)?\}}|\${_NAME}|\[\[{_NAME}(?::\w+)?\]\]")
_LABEL_VALUES = re.compile(r"label_values\(\s*(?:(?P<selector>.*\S)\s*,)?\s*(?P<label>\w+)\s*\)", re.DOTALL)


class UnknownVariableError(ValueError):
    """An expression uses a variable that its dashboard does not have."""


def substitute(text: str, values: Mapping[str, str]) -> str:
    """``text`` with each ``$name``, ``${name}`` and ``[[name]]`` replaced. Raises UnknownVariableError."""

    def value(use: re.Match[str]) -> str:
        name = use[1] or use[2] or use[3]
        if name not in values:
            raise UnknownVariableError(f"the dashboard has no variable {name}")
        return values[name]

    return _USE.sub(value, text)


def built_in(shown: TimeRange, scrape_seconds: float) -> dict[str, str]:
    """Grafana's own variables for this range."""
    step, span = shown.step, max(1, round(shown.end - shown.start))
    # As Grafana has it: a rate needs at least two samples in every window, also when one scrape is lost.
    rate = round(max(step + scrape_seconds, 4 * scrape_seconds), 3)
    return {
        "__interval": f"{step}s",
        "__interval_ms": str(1000 * step),
        "__rate_interval": f"{rate:g}s" if rate >= 1 and rate.is_integer() else f"{max(1, round(1000 * rate))}ms",
        "__range": f"{span}s",
        "__range_s": str(span),
        "__range_ms": str(1000 * span),
        "__from": str(round(1000 * shown.start)),
        "__to": str(round(1000 * shown.end)),
    }


def of_dashboard(
    dashboard: Dashboard, known: Mapping[str, str], *, jobs: list[str], client: PrometheusClient, shown: TimeRange
) -> dict[str, str]:
    """``known`` and the dashboard's variables.

    Raises ConfigError where the dashboard shows one of several ``jobs``.
    """
    values = dict(known)
    for variable in dashboard.variables:
        if variable.name == "job" and len(jobs) == 1:
            values["job"] = _written(jobs, several=variable.several)
        elif variable.name == "job" and not variable.several:
            raise ConfigError(f"{dashboard.name} shows one job: name it with --job; there are {some(jobs)}")
        else:
            values[variable.name] = _value(variable, values, client, shown)
    return values


def some(names: list[str]) -> str:
    """As many names as a line has room for."""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _value(variable: Variable, values: Mapping[str, str], client: PrometheusClient, shown: TimeRange) -> str:
    picked = [value for value in variable.current if value not in ("", ALL)]
    if variable.name not in ("job", "rank") and picked:
        return _written(picked, several=variable.several)
    if variable.several:
        return variable.all_value or ".*"
    asked = _LABEL_VALUES.fullmatch(variable.query.strip()) if variable.kind == "query" else None
    if asked is not None:
        selector = substitute(asked["selector"] or '{__name__=~".+"}', values)
        there = client.label_values(asked["label"], selector, start=shown.start, end=shown.end)
        return _written(there[:1] or [""], several=False)
    return variable.query.split(",")[0].strip()


def _written(picked: list[str], *, several: bool) -> str:
    """As it stands between the quotes of a matcher: a regular expression where several may be picked."""
    if not several:
        return picked[0].replace("\\", "\\\\").replace('"', '\\"')
    # Inside PromQL's quotes each backslash of the regular expression is written twice.
    escaped = [re.sub(r"([\\^$.|?*+()\[\]{}])", r"\\\1", value) for value in picked]
    quoted = [value.replace("\\", "\\\\").replace('"', '\\"') for value in escaped]
    return quoted[0] if len(quoted) == 1 else f"({'|'.join(quoted)})"
