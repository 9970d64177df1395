"""Times, variables and units of the dashboards' pictures."""

import math

import pytest

from trainer.dashboards.grafana_file import Dashboard, Format, Variable
from trainer.dashboards.prometheus import PrometheusClient
from trainer.dashboards.time_range import MOST_POINTS, TimeRange, duration_seconds, moment_seconds, time_range
from trainer.dashboards.units import axis_ticks, value_text
from trainer.dashboards.variables import UnknownVariableError, built_in, of_dashboard, substitute
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

NOW = 1_769_868_000.0  # 2026-01-31T14:00:00Z


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("1h30m", 5400), ("1.5h", 5400), ("2w", 1_209_600)]
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert duration_seconds(text, "--last") == seconds


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1 h", "1y", "0s", "1h!", "1h 30m", "\u0661h"])
def test_what_is_no_length_of_time_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--last .*: not a length of time; give one such as"):
        duration_seconds(text, "--last")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", NOW),
        ("now-2h", NOW - 7200),
        ("2026-01-31T14:00", NOW),
        ("2026-01-31T16:00+02:00", NOW),
        ("2026-01-31T14:00:00Z", NOW),
        ("2026-01-31", NOW - 14 * 3600),
        ("20260131", NOW - 14 * 3600),
        ("1769868000", NOW),
        ("1769868000.5", NOW + 0.5),
    ],
)
def test_moments(text: str, moment: float) -> None:
    assert moment_seconds(text, "--from", NOW) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "now+1h", "now-", "1e9", "99999999999999999999", "2026-13-01"])
def test_what_is_no_moment_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--from now-: not a length|^--from .*: not a (time|length of time); give"):
        moment_seconds(text, "--from", NOW)


def test_ranges() -> None:
    assert time_range(start=None, end=None, last=None, now=NOW) == TimeRange(NOW - 3600, NOW)
    assert time_range(start=None, end="now-1h", last="2h", now=NOW) == TimeRange(NOW - 10_800, NOW - 3600)
    assert time_range(start="2026-01-31", end="2026-01-31T01:00", last=None, now=NOW).end == NOW - 13 * 3600
    with pytest.raises(ConfigError, match="leave one out"):
        time_range(start="now-1h", end=None, last="1h", now=NOW)
    with pytest.raises(ConfigError, match="not before the end"):
        time_range(start="now", end="now-1h", last=None, now=NOW)


@pytest.mark.parametrize("span", [1, 60, 499, 501, 3600, 86_400, 7 * 86_400, 365 * 86_400, 30 * 365 * 86_400])
def test_as_many_points_as_a_picture_can_show(span: float) -> None:
    step = TimeRange(NOW - span, NOW).step
    assert step >= 1
    assert span / step <= MOST_POINTS
    assert step == 1 or span / step > MOST_POINTS / 5, "and not many fewer"


def test_the_rates_window_holds_at_least_four_scrapes() -> None:
    hour = TimeRange(NOW - 3600, NOW)
    assert hour.step == 10
    assert built_in(hour, 15.0)["__rate_interval"] == "60s"
    assert built_in(hour, 2.0)["__rate_interval"] == "12s"
    assert built_in(hour, 30.0)["__rate_interval"] == "120s"
    assert built_in(TimeRange(NOW - 60, NOW), 0.3)["__rate_interval"] == "1300ms"
    assert built_in(hour, 15.0)["__range"] == "3600s"


def test_substitution() -> None:
    values = {"job": "a", "__rate_interval": "60s"}
    assert substitute('x{job="$job"}[$__rate_interval]', values) == 'x{job="a"}[60s]'
    assert substitute('x{job=~"${job:regex}", y="[[job]]", z="${job}b"}', values) == 'x{job=~"a", y="a", z="ab"}'
    for plain in ("x offset 5m", 'label_replace(x, "a", "$1${2}", "b", "(.*)")', 'x{a=~"b$"}'):
        assert substitute(plain, values) == plain
    with pytest.raises(UnknownVariableError, match="no variable jobs"):
        substitute("$jobs", values)


def dashboard(*variables: Variable) -> Dashboard:
    return Dashboard("mine", "", "mine", (), (), variables)


def variable(
    name: str, *, several: bool = False, all_value: str | None = None, current: tuple[str, ...] = ()
) -> Variable:
    return Variable(name, "custom", "one,two", several, all_value, current)


def values_of(*variables: Variable, jobs: list[str]) -> dict[str, str]:
    """Nothing here asks a server, so none is at the address."""
    shown = TimeRange(NOW - 60, NOW)
    return of_dashboard(dashboard(*variables), {}, jobs=jobs, client=PrometheusClient("http://nobody"), shown=shown)


def test_a_jobs_name_stands_for_itself_alone() -> None:
    name = 'r50.v1 (a"b\\c)'
    assert values_of(variable("job"), jobs=[name]) == {"job": 'r50.v1 (a\\"b\\\\c)'}
    assert values_of(variable("job", several=True), jobs=["r50.v1"]) == {"job": r"r50\\.v1"}


def test_all_jobs_or_one_by_name() -> None:
    assert values_of(variable("job", several=True, all_value=".*"), jobs=["a", "b"]) == {"job": ".*"}
    with pytest.raises(ConfigError, match="mine shows one job: name it with --job; there are a, b"):
        values_of(variable("job"), jobs=["a", "b"])
    with pytest.raises(ConfigError, match="j19 and 10 more"):
        values_of(variable("job"), jobs=[f"j{number}" for number in range(30)])


def test_other_variables_keep_what_was_picked() -> None:
    found = values_of(
        variable("pair", current=("positive",)),
        variable("kind", several=True, current=("a.b", "c")),
        variable("far", several=True, current=("$__all",)),
        variable("first"),
        jobs=["a"],
    )
    assert found == {"pair": "positive", "kind": r"(a\\.b|c)", "far": ".*", "first": "one"}


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "s", "0 s"), (0.0042, "s", "4.2 ms"), (90, "s", "1.5 min"), (7200, "s", "2 h"), (200_000, "s", "2.31 d"),
        (3e-7, "s", "300 ns"), (0.123456, "percentunit", "12.3%"), (1, "percentunit", "100%"), (42, "percent", "42%"),
        (1536, "bytes", "1.5 KiB"), (7 << 30, "bytes", "7 GiB"), (1500, "Bps", "1.5 kB/s"),
        (2.5e12, "flops", "2.5 TFLOP/s"),
        (1234567, "locale", "1,234,567"), (1234567, "none", "1234567"), (1234567, "short", "1.23 M"),
        (0.00012, "none", "1.2e-4"), (0.05, "sci", "5e-2"), (1, "sci", "1"), (0, "sci", "0"),
        (41.7, "suffix:img/s", "41.7 img/s"), (1.5708, "radian", "1.57 rad"), (-0.5, "s", "-500 ms"),
        (3, "furlong", "3 furlong"), (math.nan, "s", "NaN"), (-math.inf, "s", "-inf"), (5, "", "5"),
    ],
)  # fmt: skip
def test_values_in_words(value: float, unit: str, text: str) -> None:
    assert value_text(value, Format(unit)) == text


def test_decimals_asked_for() -> None:
    assert value_text(0.5, Format("percentunit", 2)) == "50.00%"
    assert value_text(1.25, Format("none", 0)) == "1"


@pytest.mark.parametrize(
    ("low", "high", "unit", "whole", "texts"),
    [
        (0, 0.42, "s", False, ["0 ms", "100 ms", "200 ms", "300 ms", "400 ms"]),
        (0, 300, "s", False, ["0 min", "1 min", "2 min", "3 min", "4 min", "5 min"]),
        (0, 3 * 2**20, "bytes", False, ["0 MiB", "1 MiB", "2 MiB", "3 MiB"]),
        (0.9, 1.0, "percentunit", False, ["90%", "92%", "94%", "96%", "98%", "100%"]),
        (0, 1, "none", True, ["0", "1"]),
        (0, 1, "none", False, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 0.05, "sci", False, ["0", "1e-2", "2e-2", "3e-2", "4e-2", "5e-2"]),
        (1e15, 1e15, "none", False, ["1,000,000,000,000,000"]),
    ],
)
def test_round_numbers_on_an_axis(low: float, high: float, unit: str, whole: bool, texts: list[str]) -> None:
    ticks = axis_ticks(low, high, Format(unit), whole=whole)
    assert ticks.texts == texts
    assert all(low <= place * (1 + 1e-9) and place <= high * (1 + 1e-9) for place in ticks.places)
