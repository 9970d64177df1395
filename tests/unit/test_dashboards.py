"""Grafana's dashboards: current, well-formed, and about metrics that the trainer serves."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import torch
from dashboard_metrics import metrics_of
from grafana_schema import Dashboard
from metrics_table import told_series
from prometheus_client import CollectorRegistry, ProcessCollector
from pydantic import ValidationError

from deploy.dashboards import generate
from deploy.dashboards.description import read_description
from deploy.dashboards.layout import COLUMNS, Flow
from trainer.dashboards.grafana_file import SHIPPED
from trainer.world import World

pytestmark = pytest.mark.unit

ALONE = World(0, 1, 0, torch.device("cpu"))
BUILT_IN = {"__rate_interval", "__interval", "__range", "__url_time_range", "__value"}
FILES = sorted(SHIPPED.glob("*.json"))
every_dashboard = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def parsed(path: Path) -> Dashboard:
    return Dashboard.model_validate_json(path.read_text())


def exported() -> set[str]:
    """Names of all series of a rank, those of its process included."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    suffixes = {"counter": "_total"}
    return told_series() | {family.name + suffixes.get(family.type, "") for family in registry.collect()}


def test_the_files_are_current() -> None:
    assert {path.stem for path in FILES} == {"overview", "one-job", "ranks", "head", "data"}
    assert generate.stale(SHIPPED, generate.rendered()) == []
    assert generate.main(["--check"]) == 0


def test_check_tells_what_is_not_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--output", str(tmp_path)]) == 0
    assert generate.main(["--output", str(tmp_path), "--check"]) == 0
    (tmp_path / "head.json").write_text((tmp_path / "head.json").read_text().replace("Cut", "Cat"))
    (tmp_path / "data.json").unlink()
    (tmp_path / "mine.json").write_text("{}")
    capsys.readouterr()
    assert generate.main(["--output", str(tmp_path), "--check"]) == 1
    assert [line.split(" is ")[0].split("/")[-1] for line in capsys.readouterr().err.splitlines()] == [
        "data.json",
        "head.json",
        "mine.json",
    ]
    assert generate.main(["--output", str(tmp_path)]) == 0
    assert generate.stale(tmp_path, generate.rendered()) == ["mine.json"], "it removes no file that it did not write"


def test_a_mistyped_key_of_the_description_is_an_error(tmp_path: Path) -> None:
    mistyped = tmp_path / "panels.toml"
    mistyped.write_text((SHIPPED / "panels.toml").read_text().replace("decimals =", "decimal =", 1))
    with pytest.raises(ValidationError, match=r"dashboard\.0\.row\.0\.panel\.\d+\.decimal"):
        read_description(mistyped)


@every_dashboard
def test_it_is_what_grafana_reads(path: Path) -> None:
    dashboard = parsed(path)
    assert len(dashboard.drawn) > 10
    broken = json.loads(path.read_text())
    broken["panels"][1]["targets"][0]["exprs"] = "up"
    with pytest.raises(ValidationError, match="exprs"):
        Dashboard.model_validate(broken)


@every_dashboard
def test_panels_have_their_own_ids_and_places(path: Path) -> None:
    panels = parsed(path).panels
    assert len({panel.id for panel in panels}) == len(panels)
    for panel in panels:
        assert panel.gridPos.x + panel.gridPos.w <= COLUMNS, panel.title
    for one, other in combinations(panels, 2):
        a, b = one.gridPos, other.gridPos
        apart = a.x + a.w <= b.x or b.x + b.w <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
        assert apart, f"{one.title} and {other.title} overlap"


def test_panels_flow_like_words() -> None:
    flow = Flow()
    assert flow.title() == {"h": 1, "w": 24, "x": 0, "y": 0}
    places = list(flow.panels([(8, 4), (16, 8), (12, 3)]))
    assert [(place["x"], place["y"]) for place in places] == [(0, 1), (8, 1), (0, 9)]
    assert flow.title()["y"] == 12


def test_uids_are_unique_and_stay() -> None:
    assert {path.stem: parsed(path).uid for path in FILES} == {
        name: f"pfc-{name}" for name in ("data", "head", "one-job", "overview", "ranks")
    }


@every_dashboard
def test_every_variable_used_is_defined(path: Path) -> None:
    dashboard = parsed(path)
    defined = {variable.name for variable in dashboard.templating.list}
    assert {"datasource", "job"} <= defined
    used = set(re.findall(r"\$\{?(\w+)", path.read_text()))
    assert used - BUILT_IN - {"__all"} <= defined
    assert defined - {"datasource"} <= used, "a variable that nothing uses"


@every_dashboard
def test_every_expression_is_of_the_job_picked(path: Path) -> None:
    """Each selector names the job; one job exactly, as Grafana does not escape a regular expression then."""
    dashboard = parsed(path)
    job = next(variable for variable in dashboard.templating.list if variable.name == "job")
    matcher = 'job=~"$job"' if job.multi else 'job="$job"'
    expressions = [target.expr for panel in dashboard.drawn for target in panel.targets]
    for expression in [*expressions, *(annotation.expr for annotation in dashboard.annotations.list)]:
        selectors = re.findall(r"\b(?:pfc|process)_\w+(\{[^}]*\})?", expression)
        assert selectors, expression
        assert all(matcher in selector for selector in selectors), expression


def test_every_metric_is_exported() -> None:
    there = exported()
    named = {
        name
        for path in FILES
        for dashboard in [parsed(path)]
        for expression in [
            *(target.expr for panel in dashboard.drawn for target in panel.targets),
            *(annotation.expr for annotation in dashboard.annotations.list),
        ]
        for name in metrics_of(expression)
    }
    assert len(named) > 40
    assert named - there == set()


def test_metrics_are_found_in_expressions_and_not_in_strings() -> None:
    assert metrics_of('sum(rate(pfc_a_total{job=~"$job", x="pfc_b"}[1m])) / process_c') == {"pfc_a_total", "process_c"}


@every_dashboard
def test_annotations_tell_of_checkpoints_and_starts(path: Path) -> None:
    names = Counter(annotation.name for annotation in parsed(path).annotations.list)
    assert names == Counter(["checkpoint complete", "started", "back to a checkpoint"])


def test_a_click_in_the_table_of_jobs_opens_that_job() -> None:
    table = next(panel for panel in parsed(SHIPPED / "overview.json").drawn if panel.type == "table")
    links = [each.value for column in table.fieldConfig.overrides for each in column.properties if each.id == "links"]
    assert len(links) == 1
    assert "/d/pfc-one-job?var-job=${__value.raw}" in json.dumps(links)
