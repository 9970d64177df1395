"""The shipped rules, read as data."""

import re
from pathlib import Path
from typing import Any

import yaml

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
RULE_FILES = [MONITORING / "rules" / name for name in ("pfc.recording.yml", "pfc.alerts.yml")]
RULE_TESTS = sorted((MONITORING / "rules" / "tests").glob("*.yml"))
RUNBOOK = MONITORING / "RUNBOOK.md"


def rules() -> list[dict[str, Any]]:
    """All rules of all groups."""
    return [
        rule
        for path in RULE_FILES
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def records() -> dict[str, dict[str, Any]]:
    """The recording rules by the name they record."""
    return {rule["record"]: rule for rule in rules() if "record" in rule}


def runbook_sections() -> dict[str, str]:
    """Heading -> text of the runbook's sections of second level."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def runbook_queries() -> list[str]:
    """The queries that the runbook offers to paste, for a run of some name."""
    found = re.findall(r"```promql\n(.*?)```", RUNBOOK.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [query.strip().replace("JOB", "r50") for query in found]


def metric_names(expression: str) -> set[str]:
    """Names of this project's series in a query, recorded ones too; not its labels' values."""
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"(?<![\w:])(?:[a-z_]+:)?pfc_[\w:]+", without_strings))
