"""Rules, discovery and the runbook's queries, checked by promtool itself."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from monitoring_files import MONITORING, RULE_FILES, RULE_TESTS, runbook_queries

from trainer.scrape_targets import write_targets

PROMTOOL = shutil.which("promtool")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not PROMTOOL, reason="no promtool: apt-get install prometheus"),
]

DISCOVERY = MONITORING / "discovery"


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    command = [PROMTOOL, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def accepted(*arguments: str | Path) -> str:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_are_valid() -> None:
    accepted("check", "rules", *RULE_FILES)


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    accepted("test", "rules", path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_share5m > 0.3", "max_share5m > 0.28"),  # fires too early
        ("max_share5m > 0.3", "max_share5m > 0.5"),  # too late
        ("for: 10m", "for: 1m"),
        ("severity: warn", "severity: page"),
        ("waits for data", "waits for tea"),
    ],
)
def test_a_rule_that_has_changed_fails_its_tests(tmp_path: Path, old: str, new: str) -> None:
    for source in RULE_FILES:
        text = source.read_text(encoding="utf-8")
        (tmp_path / source.name).write_text(text.replace(old, new) if "alerts" in source.name else text)
        assert old in text or "alerts" not in source.name
    (tmp_path / "tests").mkdir()
    copy = shutil.copy(MONITORING / "rules" / "tests" / "speed.yml", tmp_path / "tests")
    assert promtool("test", "rules", copy).returncode == 1


def test_queries_of_the_runbook_can_be_pasted(tmp_path: Path) -> None:
    queries = runbook_queries()
    assert len(queries) > 20
    rules = [{"record": f"pasted:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    accepted("check", "rules", path)


@pytest.mark.parametrize("name", ["static.yml", "file_sd.yml"])
def test_configurations_are_valid(name: str) -> None:
    assert "2 rule files found" in accepted("check", "config", DISCOVERY / name)


def with_targets(shipped: str, targets: Path, folder: Path) -> Path:
    """A shipped configuration that finds its targets in a file, as Debian's Prometheus has no Kubernetes in it."""
    configuration: dict[str, Any] = yaml.safe_load((DISCOVERY / shipped).read_text(encoding="utf-8"))
    configuration["rule_files"] = [str(path) for path in RULE_FILES]
    (scrape,) = configuration["scrape_configs"]
    scrape.pop("kubernetes_sd_configs", None)
    scrape["file_sd_configs"] = [{"files": [str(targets)]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    return path


def scraped(configuration: Path) -> list[dict[str, str]]:
    """Labels of the targets that are left after relabelling."""
    accepted("check", "config", configuration)
    found = json.loads(accepted("check", "service-discovery", "--timeout=3s", configuration, "pfc"))
    return [target["labels"] for target in found if target["labels"]]


def test_a_run_s_own_list_gives_job_and_rank(tmp_path: Path) -> None:
    with write_targets(tmp_path / "run.json", ["node-a:9500", "node-b:9500"], {"job": "r50"}) as targets:
        found = scraped(with_targets("file_sd.yml", targets, tmp_path))
    assert sorted((each["instance"], each["job"], each["rank"], each["listed_by"]) for each in found) == [
        ("node-a:9500", "r50", "0", "pfc"),
        ("node-b:9500", "r50", "1", "pfc"),
    ]


def pod(address: str, port_name: str, phase: str = "Running") -> dict[str, Any]:
    """A target as kubernetes_sd finds it, role pod."""
    labels = {
        "container_port_name": port_name,
        "phase": phase,
        "name": "r50-1-xyz",
        "label_app_kubernetes_io_instance": "r50",
        "label_batch_kubernetes_io_job_completion_index": "1",
    }
    labels = {f"__meta_kubernetes_pod_{name}": value for name, value in labels.items()}
    return {"targets": [address], "labels": {**labels, "__meta_kubernetes_namespace": "training"}}


def test_pods_become_targets_by_the_names_of_their_ports(tmp_path: Path) -> None:
    targets = tmp_path / "pods.json"
    targets.write_text(
        json.dumps(
            [
                pod("10.0.0.1:9500", "metrics-0"),
                pod("10.0.0.1:9511", "metrics-11"),
                pod("10.0.0.1:29500", "store"),
                pod("10.0.0.2:9500", "metrics-0", phase="Succeeded"),
                pod("10.0.0.3:9500", "metrics-0", phase="Failed"),
            ]
        )
    )
    found = scraped(with_targets("kubernetes_sd.yml", targets, tmp_path))
    assert {each["instance"]: each["local_rank"] for each in found} == {"10.0.0.1:9500": "0", "10.0.0.1:9511": "11"}
    for each in found:
        names = ("job", "namespace", "pod", "node_rank")
        assert [each[name] for name in names] == ["r50", "training", "r50-1-xyz", "1"]
