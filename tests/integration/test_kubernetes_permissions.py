"""The Role in deploy/kubernetes.md is what the commands need: they ask for nothing else, and for all of it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import ROOT
from kubernetes_jobs import full

from deploy.submit.k8s.contract import INDEX_ANNOTATION, labels
from deploy.submit.k8s.options import KINDS, Options
from deploy.submit.kubernetes import KubernetesTarget

pytest.importorskip("kubernetes", reason="needs the Kubernetes client: make venv installs it")
pytest.importorskip("kmock", reason="needs kmock: make venv installs it")

from api_server import add_claims, api_server, write_kubeconfig

pytestmark = pytest.mark.integration

VERBS = {"create": "create", "fetch": "get", "update": "patch", "delete": "delete", "list": "list"}
PODS = {"metadata": {"name": "faces-0", "labels": labels("faces"), "annotations": {INDEX_ANNOTATION: "0"}}}


@pytest.fixture(scope="module")
def role() -> dict[str, Any]:
    text = (ROOT / "deploy" / "kubernetes.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    loaded = yaml.safe_load(block)
    assert isinstance(loaded, dict)
    return loaded


def test_the_role_is_one(role: dict[str, Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: make venv installs it")
    validate.validate(role, validate.latest_version(), strict=True)


def test_the_commands_need_it_and_nothing_else(role: dict[str, Any], tmp_path: Path) -> None:
    allowed = {(verb, resource) for rule in role["rules"] for verb in rule["verbs"] for resource in rule["resources"]}
    asked = set()
    for kind in KINDS:
        with api_server() as (server, address):
            kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", address)
            add_claims(server, "face-data", "runs")
            target = KubernetesTarget(Options(kubeconfig=kubeconfig, kind=kind, pod_monitor=True))
            spec = {"containers": [{"name": "trainer"}]}
            server.add("v1/pods", PODS | {"spec": spec, "status": {"phase": "Running"}})
            server.printed = {"faces-0": ["a line"]}
            target.submit(full())
            target.status("faces")
            server.finish("v1/pods", "faces-0")
            target.status("faces")  # why there are none
            server.add("v1/pods", PODS | {"spec": spec, "status": {"phase": "Running"}})
            assert list(target.logs("faces")) == ["a line"]
            target.cancel("faces")
            target.cancel("faces")  # at once
            asked |= {(VERBS[line.split()[0]], line.split()[1]) for line in server.said}
    for each in ("configmaps", "services", "podmonitors", "trainingruntimes"):
        asked.add(("delete", each))  # what send takes back: tests/integration/test_kubernetes.py
    assert asked == allowed
