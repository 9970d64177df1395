"""What Kubernetes could not carry is refused in the words of the command line, before anything is sent."""

import argparse
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from kubernetes_jobs import bare, full

from deploy.submit.errors import SubmitError
from deploy.submit.job import Job, Resources, Toleration, Volume
from deploy.submit.k8s import naming
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.quantity import parse
from deploy.submit.k8s.refusal import LARGEST_CONFIG, objections
from deploy.submit.kubernetes import TARGET, KubernetesTarget
from deploy.submit.target import Target

pytestmark = pytest.mark.unit

RUNS = Volume("runs", "/runs")
SERVED = '[metrics]\naddress = "0.0.0.0"\n'
PRETRAINED = SERVED + '[backbone]\npretrained = "/old/step_1"\n'


def of_size(size: int) -> str:
    return SERVED + "#" * (size - len(SERVED))


# What is refused, with a near relative that is not.
CASES: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    ({"name": "Faces"}, {}, {"name": "faces-2"}, {}, "name 'Faces': .* give another one by --name"),
    ({"name": "2faces"}, {}, {"name": "f2"}, {}, "name '2faces'"),
    ({"name": "n" * 41}, {}, {"name": "n" * 40}, {}, "at most 40"),
    ({"image": None}, {}, {"image": "pfc@sha256:0"}, {}, "give their image by --image"),
    ({"grace_seconds": 30}, {}, {"grace_seconds": 31}, {}, "a grace time of 30 s leaves none for a checkpoint"),
    ({"deadline_seconds": 0}, {}, {"deadline_seconds": 1}, {}, "a deadline of 0 s"),
    (
        {"config_text": of_size(LARGEST_CONFIG + 1)},
        {},
        {"config_text": of_size(LARGEST_CONFIG)},
        {},
        "the 1 MiB that a",
    ),
    ({"config_text": SERVED.replace("0.0.0.0", "::1")}, {}, {"config_text": SERVED}, {}, "is the pod's own loopback"),
    ({"config_text": SERVED.replace("0.0.0.0", "127.0.0.1")}, {}, {"metrics_port": None}, {}, "leave it out .0.0.0.0"),
    (
        {"config_text": PRETRAINED},
        {},
        {"config_text": PRETRAINED, "volumes": (RUNS, Volume("a", "/old", True))},
        {},
        "backbone.pretrained /old/step_1 is on no volume: .* --volume CLAIM:/old/step_1:ro",
    ),
    (
        {"config_text": SERVED + '[data]\nrecords = "/faces/train.rec"\n'},
        {},
        {"config_text": SERVED + '[data]\nrecords = "/data/train.rec"\n'},
        {},
        "data.records /faces/train.rec is on no volume: .* --volume CLAIM:/faces:ro",
    ),
    ({}, {"max_restarts": -1}, {}, {"max_restarts": 0}, "--max-restarts -1: give 0 or more"),
    ({}, {"startup_seconds": 0}, {}, {"startup_seconds": 1}, "--startup-seconds 0"),
    ({}, {"namespace": "a.b"}, {}, {"namespace": "a-b"}, "--namespace a.b: no name of a namespace"),
    ({}, {"service_account": "A"}, {}, {"service_account": "a.b"}, "--service-account A: no name"),
    ({}, {"image_pull_secret": "a/b"}, {}, {"image_pull_secret": "a"}, "--image-pull-secret a/b: no name"),
    ({"queue": "A"}, {}, {"queue": "a"}, {}, "queue 'A': no name of a local queue"),
    ({"node_selector": {"a": "b c"}}, {}, {"node_selector": {"x.io/a": ""}}, {}, "node selector a=b c: not a label"),
    (
        {"tolerations": (Toleration("a", "b", "No"),)},
        {},
        {"tolerations": (Toleration("a"),)},
        {},
        "effect 'No' is none",
    ),
    ({"tolerations": (Toleration("", "b"),)}, {}, {"tolerations": (Toleration(""),)}, {}, "tolerates every taint"),
    ({"tolerations": (Toleration("a b"),)}, {}, {"tolerations": (Toleration("x.io/a"),)}, {}, "not the key of a taint"),
    (
        {"metrics_port": None},
        {"pod_monitor": True},
        {},
        {"pod_monitor": True},
        "the run serves no metrics; set metrics",
    ),
    ({}, {"monitor_labels": {"a": "b"}}, {}, {"monitor_labels": {"a": "b"}, "pod_monitor": True}, "no effect without"),
    ({"metrics_port": 65535}, {}, {"metrics_port": 65534}, {}, "metrics.port 65535 . 2 ranks: beyond 65535"),
    (
        {"volumes": (Volume("/srv", "/runs"),)},
        {},
        {"volumes": (RUNS,)},
        {},
        "a folder of the host is not passed to pods",
    ),
    ({"volumes": (RUNS, Volume("A", "/x"))}, {}, {"volumes": (RUNS, Volume("a", "/x"))}, {}, "no name of a Persistent"),
    (
        {"volumes": (RUNS, Volume("a", "x"))},
        {},
        {"volumes": (RUNS, Volume("a", "/x/y"))},
        {},
        "give an absolute folder",
    ),
    ({"volumes": (Volume("a", "/"),)}, {}, {"volumes": (RUNS,)}, {}, "a:/: give an absolute folder"),
    (
        {"volumes": (RUNS, Volume("a", "/tmp/x"))},
        {},
        {"volumes": (RUNS, Volume("a", "/tmpx"))},
        {},
        "/tmp is the run's",
    ),
    (
        {"volumes": (RUNS, Volume("a", "/runs"))},
        {},
        {"volumes": (RUNS, Volume("a", "/run"))},
        {},
        "two volumes at /runs",
    ),
    ({"volumes": (Volume("a", "/run"),)}, {}, {"volumes": (RUNS,)}, {}, "run.output /runs/faces is on no volume"),
    ({"volumes": (Volume("a", "/runs", True),)}, {}, {"volumes": (RUNS,)}, {}, "is on volume a, which is read-only"),
    (
        {"volumes": (RUNS, Volume("a", "/runs/faces", True))},
        {},
        {"volumes": (Volume("a", "/runs", True), Volume("b", "/runs/faces"))},
        {},
        "is on volume a, which is read-only",
    ),
    ({"environment": {"A=": ""}}, {}, {"environment": {"A": ""}}, {}, "variable 'A=': no name"),
    ({"passed_through": {"PET_X": ""}}, {}, {"passed_through": {"PETX": ""}}, {}, "PET_. say where a node stands"),
    (
        {"environment": {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}},
        {},
        {"environment": {}},
        {},
        "follows from the grace time",
    ),
    ({"secrets": {"A": "b"}}, {}, {"secrets": {"A": "b/c.d"}}, {}, "secret for A: write it as SECRET/KEY"),
    ({"environment": {"WANDB_API_KEY": "x"}}, {}, {"environment": {}}, {}, "given both as a value and from a secret"),
    ({"resources": Resources(cpus="8c")}, {}, {"resources": Resources(cpus="500m")}, {}, "--cpus: '8c' is no amount"),
    ({"resources": Resources(memory="1GB")}, {}, {"resources": Resources(memory="2G")}, {}, "--memory: '1GB' is no"),
    ({"resources": Resources(shm="x")}, {}, {"resources": Resources(shm="1Gi")}, {}, "--shm: 'x' is no amount"),
    ({"resources": Resources(memory="1Gi")}, {}, {"resources": Resources(memory="1.1Gi")}, {}, "of which there is 1Gi"),
]


def described(job: dict[str, Any], options: dict[str, Any]) -> list[str]:
    return list(objections(full(**{"config_text": SERVED} | job), Options(**options)))


@pytest.mark.parametrize(("job", "options", "good_job", "good_options", "told"), CASES, ids=[case[4] for case in CASES])
def test_refused_and_its_relative_not(
    job: dict[str, Any], options: dict[str, Any], good_job: dict[str, Any], good_options: dict[str, Any], told: str
) -> None:
    found = described(job, options)
    assert any(re.search(told, objection) for objection in found), found
    assert not any("\n" in objection for objection in found)
    with pytest.raises(SubmitError) as raised:
        KubernetesTarget(Options(**options)).check(full(**{"config_text": SERVED} | job))
    assert raised.value.code == 2
    assert described(good_job, good_options) == []


@pytest.mark.parametrize("job", [full(), bare()])
def test_nothing_is_said_of_what_is_well(job: Job) -> None:
    assert list(objections(job, Options())) == []
    KubernetesTarget(Options()).check(job)


def test_a_broken_rule_would_be_told_by_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the options let through, what is rendered is looked at once more."""
    monkeypatch.setattr("deploy.submit.k8s.environment.KILL_MARGIN_SECONDS", -1)
    with pytest.raises(
        SubmitError, match="no cluster would take this: Job faces: TORCH_ELASTIC_SHUTDOWN_TIMEOUT is 901"
    ):
        KubernetesTarget(Options()).check(full())


def test_options_from_the_command_line() -> None:
    parser = argparse.ArgumentParser()
    TARGET.add_arguments(parser)
    assert TARGET.from_arguments(parser.parse_args([]))._options == Options()
    line = "--namespace ml --context c --kubeconfig k --kind jobset --service-account s --image-pull-secret p "
    line += "--max-restarts 7 --pod-monitor --pod-monitor-label a=b --pod-monitor-label c= --startup-seconds 60"
    assert TARGET.from_arguments(parser.parse_args(line.split()))._options == Options(
        kind="jobset",
        namespace="ml",
        context="c",
        kubeconfig=Path.cwd() / "k",
        service_account="s",
        image_pull_secret="p",
        max_restarts=7,
        pod_monitor=True,
        monitor_labels={"a": "b", "c": ""},
        startup_seconds=60,
    )


def test_a_label_without_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    TARGET.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["--pod-monitor-label", "release"])
    assert "release: write it as KEY=VALUE" in capsys.readouterr().err


def test_it_is_a_target() -> None:
    target: Target = TARGET(Options())
    assert {name for name in vars(Target) if not name.startswith("_")} <= set(dir(target))


@pytest.mark.parametrize("missing", ["kubernetes", "yaml"])
def test_without_the_client(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    target = KubernetesTarget(Options())
    with pytest.raises(SubmitError, match=re.escape("pip install 'pfc[kubernetes]'")):
        target.submit(bare()) if missing == "kubernetes" else target.render(bare())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", "8"),
        ("500m", "0.5"),
        ("1.5Gi", "1610612736"),
        ("2k", "2000"),
        ("1e3", "1000"),
        ("1E", "1e18"),
        (".5", "0.5"),
    ],
)
def test_amounts(text: str, value: str) -> None:
    assert parse(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "-1", "1 Gi", "1GB", "Gi", "1.2.3", "1e", "1\n", "\u0661"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="is no amount that Kubernetes knows"):
        parse(text)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (naming.is_label, ["a", "0-a", "a" * 63], ["", "A", "a.b", "-a", "a-", "a" * 64, "a\n", "é"]),
        (naming.is_service, ["a", "a-0"], ["0a", "", "a" * 64]),
        (naming.is_subdomain, ["a.b", "a" * 253], ["a..b", ".a", "", "a" * 254]),
        (naming.is_label_key, ["a", "x.io/a_B"], ["", "x.io/", "/a", "a/b/c", "x io/a"]),
        (naming.is_label_value, ["", "A_b.c-1"], ["a b", "-a", "a" * 64]),
        (naming.is_port, ["metrics-0", "a"], ["", "0", "metrics-rank-100", "a--b", "A"]),
        (naming.is_variable, ["A", "a.b-c", "_1"], ["", "1A", "A=B", "A B"]),
        (naming.is_secret_key, ["api-key", ".a_B"], ["", "a/b", "a b"]),
    ],
)
def test_names(check: Any, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not check(text)] == []
    assert [text for text in bad if check(text)] == []
