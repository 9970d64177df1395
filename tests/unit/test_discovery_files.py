"""What tells Prometheus where the exporters are: the PodMonitor against its CRD, and what all ways have in common."""

import re
from typing import Any

import pytest
import yaml
from monitoring_files import MONITORING
from pod_monitor_fields import ENDPOINT, RELABELING, SPEC, of_known_fields

pytestmark = pytest.mark.unit

DISCOVERY = MONITORING / "discovery"
CONFIGURATIONS = ("static.yml", "file_sd.yml", "kubernetes_sd.yml")

DURATION = re.compile(r"(0|(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)")
PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")  # IANA_SVC_NAME, as Kubernetes wants it
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


@pytest.fixture
def monitor() -> dict[str, Any]:
    loaded = yaml.safe_load((DISCOVERY / "podmonitor.yml").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def test_the_pod_monitor_is_one(monitor: dict[str, Any]) -> None:
    assert monitor.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert monitor["metadata"].keys() <= {"name", "namespace", "labels", "annotations"}
    assert all(isinstance(value, str) for value in monitor["metadata"]["labels"].values())
    of_known_fields(monitor["spec"], SPEC)
    assert monitor["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/name": "pfc"}}
    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/instance"


def test_one_endpoint_for_each_local_rank(monitor: dict[str, Any]) -> None:
    endpoints = monitor["spec"]["podMetricsEndpoints"]
    assert [endpoint["port"] for endpoint in endpoints] == [f"metrics-{rank}" for rank in range(8)]
    for local_rank, endpoint in enumerate(endpoints):
        of_known_fields(endpoint, ENDPOINT)
        assert PORT_NAME.fullmatch(endpoint["port"])
        assert DURATION.fullmatch(endpoint["interval"])
        assert endpoint["honorLabels"] is True
        for relabeling in endpoint["relabelings"]:
            of_known_fields(relabeling, RELABELING)
            assert LABEL.fullmatch(relabeling["targetLabel"])
            assert all(LABEL.fullmatch(label) for label in relabeling.get("sourceLabels", []))
        (fixed,) = [each for each in endpoint["relabelings"] if "sourceLabels" not in each]
        assert (fixed["targetLabel"], fixed["replacement"]) == ("local_rank", str(local_rank))


@pytest.mark.parametrize(("field", "value"), [("honorLabel", True), ("honorLabels", "true"), ("port", 9500)])
def test_a_misspelt_field_would_be_seen(field: str, value: object) -> None:
    with pytest.raises(AssertionError):
        of_known_fields({field: value}, ENDPOINT)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_labels_of_the_exporters_are_honoured_and_rules_loaded(name: str) -> None:
    configuration = yaml.safe_load((DISCOVERY / name).read_text(encoding="utf-8"))
    (scrape,) = configuration["scrape_configs"]
    assert scrape["honor_labels"] is True
    assert sum(key.endswith(("_sd_configs", "static_configs")) for key in scrape) == 1
    (pattern,) = configuration["rule_files"]
    found = [path.name for path in (DISCOVERY / pattern).parent.resolve().glob(pattern.rpartition("/")[2])]
    assert sorted(found) == ["pfc.alerts.yml", "pfc.recording.yml"], "and not the rules' tests"
    assert configuration["global"] == {"scrape_interval": "15s", "evaluation_interval": "15s"}
