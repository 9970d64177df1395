"""Rules, their tests, the runbook and the metrics fit together; what needs promtool is in the system tier."""

import re
from typing import Any

import pytest
import yaml
from metrics_table import told_series
from monitoring_files import (
    RULE_TESTS,
    RUNBOOK,
    alerts,
    metric_names,
    records,
    rules,
    runbook_queries,
    runbook_sections,
)
from pydantic import BaseModel

from trainer.config import Config

pytestmark = pytest.mark.unit

ROOT = RUNBOOK.parents[2]


def rule_tests() -> list[dict[str, Any]]:
    return [test for path in RULE_TESTS for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]


def used_names() -> set[str]:
    expressions = [rule["expr"] for rule in rules()] + runbook_queries()
    expressions += [text for alert in alerts().values() for text in alert["annotations"].values()]
    return {name for expression in expressions for name in metric_names(expression)}


def test_names_are_found_in_queries() -> None:
    query = 'job:pfc_a:sum{x="pfc_no"} / on (job) rate(pfc_b_total{job="pfc_c"}[5m]) > fleet:pfc_d:max_ratio'
    assert metric_names(query) == {"job:pfc_a:sum", "pfc_b_total", "fleet:pfc_d:max_ratio"}


def test_every_metric_exists() -> None:
    raw = {name for name in used_names() if ":" not in name}
    assert len(raw) > 20
    assert raw - told_series() == set(), "no rank exports these"


def test_every_recorded_name_that_is_used_is_recorded() -> None:
    recorded = {name for name in used_names() if ":" in name}
    assert recorded
    assert recorded - records().keys() == set()


def test_recorded_names_say_level_metric_operations() -> None:
    for name, rule in records().items():
        level, metric, operations = name.split(":")
        assert re.fullmatch(r"(fleet|instance|job|job_phase|job_operation|job_kind)", level), name
        assert metric.startswith("pfc_"), name
        assert re.fullmatch(r"[a-z0-9_]+", operations), name
        labels = {"fleet": "", "instance": "by (job, instance)"}.get(level, f"by ({', '.join(level.split('_'))})")
        by = rule["expr"].replace(", le)", ")")  # histogram_quantile takes `le` away
        assert labels in by, f"{name} does not aggregate {labels}"


def test_names_are_given_once() -> None:
    assert len(alerts()) + len(records()) == len(rules())


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_a_person_needs(name: str) -> None:
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("page", "warn")
    annotations = alert["annotations"]
    assert annotations.keys() == {"summary", "description", "runbook"}
    assert "$labels.job" in annotations["summary"]
    path, anchor = annotations["runbook"].split("#")
    assert (ROOT / path) == RUNBOOK
    assert anchor == name.lower(), "a heading's anchor is its text in lower case"
    assert "severity" not in alert["expr"]


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert list(runbook_sections()) == list(alerts()), "in the same order, too"


@pytest.mark.parametrize("name", runbook_sections())
def test_a_section_leads_from_meaning_to_deed(name: str) -> None:
    text = runbook_sections()[name]
    parts = re.findall(r"^\*\*(.+?)\*\*", text, flags=re.MULTILINE)
    assert parts == ["What it means.", "First look.", "Likely causes.", "What to do.", "When to ignore."]
    assert "```promql" in text
    assert any(query.replace("r50", "JOB") in text for query in runbook_queries())


def test_the_runbook_names_keys_that_exist() -> None:
    text = RUNBOOK.read_text(encoding="utf-8")
    tables = {name: field.annotation for name, field in Config.model_fields.items()}
    named = re.findall(r"(?<![\w./])([a-z]+)\.([a-z_]+)(?!\w*[./(])", text)
    checked = 0
    for table, key in named:
        model = tables.get(table)
        if isinstance(model, type) and issubclass(model, BaseModel):
            assert key in model.model_fields, f"{table}.{key}"
            checked += 1
    assert checked > 10


def test_the_runbook_greps_for_events_that_are_logged() -> None:
    events = set(re.findall(r"""grep '"([^"]+)"'""", RUNBOOK.read_text(encoding="utf-8")))
    assert len(events) >= 3
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "trainer").glob("*.py"))
    for event in events:
        assert re.search(rf'log\.(info|warning|error)\(\s*"{event}"', sources), event


@pytest.mark.parametrize("name", alerts())
def test_every_alert_is_tested_both_ways(name: str) -> None:
    tests = [
        (test["name"], each["exp_alerts"])
        for test in rule_tests()
        for each in test.get("alert_rule_test", ())
        if each["alertname"] == name
    ]
    expecting = {test for test, expected in tests if expected}
    silent = {test for test, _ in tests} - expecting
    assert expecting, f"no test expects {name}"
    assert silent, f"no test in which {name} stays silent throughout"


@pytest.mark.parametrize("name", records())
def test_every_record_is_tested_both_ways(name: str) -> None:
    expected = [
        each["exp_samples"]
        for test in rule_tests()
        for each in test.get("promql_expr_test", ())
        if name in metric_names(each["expr"])
    ]
    assert any(expected), f"no test expects a value of {name}"
    without = [samples for samples in expected if not samples]
    # A rate is there as soon as its counter is: its other way is the value 0.
    zero = [samples for samples in expected if samples and all(sample["value"] == 0 for sample in samples)]
    assert without or zero, f"no test in which {name} has no value, or none but 0"


def test_rule_tests_have_names_of_their_own() -> None:
    for path in RULE_TESTS:
        names = [(test["name"]) for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]]
        assert len(names) > 1
    spoken = [
        (test["name"], tuple(each["alertname"] for each in test.get("alert_rule_test", ()))) for test in rule_tests()
    ]
    assert len(set(spoken)) == len(spoken)
