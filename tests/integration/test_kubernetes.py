"""The whole path of a run on Kubernetes, by the official client and an API server that remembers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_jobs import bare, full
from kubernetes_pods import pod
from ports import free_port

from deploy.submit.errors import LeftBehindError, SubmitError
from deploy.submit.job import Volume
from deploy.submit.k8s import removal, sending
from deploy.submit.k8s.connection import connect
from deploy.submit.k8s.contract import labels
from deploy.submit.k8s.options import Options
from deploy.submit.kubernetes import KubernetesTarget

pytest.importorskip("kubernetes", reason="needs the Kubernetes client: make venv installs it")
pytest.importorskip("kmock", reason="needs kmock: make venv installs it")

from api_server import ApiServer, add_claims, api_server, write_kubeconfig

pytestmark = pytest.mark.integration

WORKLOAD = {
    "job": "batch/v1/jobs",
    "jobset": "jobset.x-k8s.io/v1alpha2/jobsets",
    "trainjob": "trainer.kubeflow.org/v1alpha1/trainjobs",
}
SENT = {
    "job": ["configmaps", "podmonitors", "services", "jobs"],
    "jobset": ["configmaps", "podmonitors", "jobsets"],
    "trainjob": ["configmaps", "podmonitors", "trainingruntimes", "trainjobs"],
}
RESOURCE = {
    "configmaps": "v1/configmaps",
    "services": "v1/services",
    "podmonitors": "monitoring.coreos.com/v1/podmonitors",
    "trainingruntimes": "trainer.kubeflow.org/v1alpha1/trainingruntimes",
}


@dataclass
class Here:
    server: ApiServer
    options: Options

    def target(self, **changes: Any) -> KubernetesTarget:
        return KubernetesTarget(replace(self.options, **changes))

    def resource(self, plural: str) -> str:
        return RESOURCE.get(plural) or next(each for each in WORKLOAD.values() if each.endswith(f"/{plural}"))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with api_server() as (server, address):
        for namespace in ("ml", "elsewhere", "third"):
            add_claims(server, "face-data", "runs", namespace=namespace)
        yield Here(server, Options(kubeconfig=write_kubeconfig(tmp_path / "kubeconfig", address), pod_monitor=True))


@pytest.mark.parametrize("kind", WORKLOAD)
def test_from_nothing_to_nothing(here: Here, kind: Any) -> None:
    target = here.target(kind=kind)
    told = target.submit(full())
    assert told.endswith("faces in namespace ml: 3 nodes of 2 ranks")
    assert here.server.there() == {f"{plural}/faces" for plural in SENT[kind]}
    for document in yaml.safe_load_all(target.render(full())):
        plural = document["kind"].lower() + "s"
        found = here.server.found(here.resource(plural), "faces")
        owners = found["metadata"].pop("ownerReferences", [])
        uid = found["metadata"].pop("uid")
        assert found["metadata"].pop("namespace") == "ml"
        assert found == document, "what is rendered is what is sent"
        if plural != SENT[kind][-1]:
            workload = here.server.objects[WORKLOAD[kind], "ml", "faces"].raw
            (owner,) = owners
            assert (owner["apiVersion"], owner["kind"]) == (workload["apiVersion"], workload["kind"])
        found["metadata"] |= {"uid": uid, "ownerReferences": owners, "namespace": "ml"}
    # Whoever asks need not know of which kind it is.
    asks = here.target()
    assert asks.status("faces").state == "waiting"
    assert "its nodes write a checkpoint and end" in asks.cancel("faces")
    assert asks.status("faces").state == "cancelled"
    assert here.server.there() == {f"{plural}/faces" for plural in SENT[kind]}, "until its pods have ended"
    here.server.add("v1/pods", pod("faces-0-a", 0, "Running"))
    assert "its nodes are ended at once" in asks.cancel("faces")
    assert (here.server.deletions["faces-0-a"], here.server.deletions["faces"]) == (1, None)
    assert "pods/faces-0-a" not in here.server.there()
    here.server.finish(WORKLOAD[kind], "faces")
    assert here.server.there() == set()
    assert asks.status("faces").state == "unknown"


@pytest.mark.parametrize("kind", WORKLOAD)
def test_a_failure_half_way_leaves_nothing(here: Here, kind: Any) -> None:
    for number, plural in enumerate(SENT[kind]):
        here.server.refusals = {f"create {plural}": (403, f"User cannot create {plural}")}
        here.server.said.clear()
        with pytest.raises(SubmitError, match=r"not allowed to create .* faces in namespace ml: User cannot create"):
            here.target(kind=kind).submit(full())
        assert here.server.there() == set()
        assert [line for line in here.server.said if line.startswith("delete")] == [
            f"delete {each}" for each in reversed(SENT[kind][:number])
        ]
    here.server.refusals = {"update configmaps": (403, "User cannot patch configmaps")}
    with pytest.raises(SubmitError, match="not allowed to patch ConfigMap faces in namespace ml: User cannot patch"):
        here.target(kind=kind).submit(full())
    assert here.server.there() == set()


def test_what_cannot_be_removed_is_named(here: Here) -> None:
    here.server.refusals = {"create jobs": (422, "no such image"), "delete services": (403, "no")}
    with pytest.raises(LeftBehindError) as raised:
        here.target().submit(full())
    line = str(raised.value)
    assert "finds Job faces in namespace ml invalid: no such image; left behind: Service faces; once the" in line
    assert raised.value.code == 2
    assert here.server.there() == {"services/faces"}
    kubectl = f"kubectl --kubeconfig {here.options.kubeconfig} --context here --namespace ml"
    assert line.endswith(f"pfc cancel faces, or {kubectl} delete --ignore-not-found services/faces")
    here.server.refusals = {}
    assert here.target().cancel("faces") == "removed what was left of faces: Service"
    assert here.server.there() == set()


def test_the_command_that_removes_the_rest_names_kinds_of_others_in_full(here: Here) -> None:
    here.server.refusals = {"create trainjobs": (403, "no"), "delete *": (403, "no")}
    with pytest.raises(LeftBehindError) as raised:
        here.target(kind="trainjob").submit(full())
    assert ": left behind: " not in str(raised.value)
    assert "left behind: ConfigMap faces, PodMonitor faces, TrainingRuntime faces; once" in str(raised.value)
    assert str(raised.value).endswith(
        "delete --ignore-not-found configmaps/faces podmonitors.monitoring.coreos.com/faces "
        "trainingruntimes.trainer.kubeflow.org/faces"
    )


def test_what_cannot_be_removed_at_first_is_tried_again(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.server.refusals = {"create jobs": (403, "no"), "delete services": (503, "try again")}
    pauses = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        here.server.refusals.pop("delete services", None)

    monkeypatch.setattr(sending.time, "sleep", sleep)
    with pytest.raises(SubmitError, match=r"not allowed to create Job faces in namespace ml: no$"):
        here.target().submit(full())
    assert pauses == [0.5]
    assert here.server.there() == set()


def test_an_answer_that_never_comes(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PAUSES", (0.0, 0.0))
    here.server.hangs_up = {"create services"}
    with pytest.raises(SubmitError, match=r"does not answer \(.*\): is this the right --context\?$"):
        here.target().submit(full())
    assert here.server.there() == set(), "it had been created, and nobody was told"
    here.server.hangs_up = {"create services", "fetch services"}
    with pytest.raises(
        LeftBehindError, match=r"does not answer .*; left behind: ConfigMap faces, .*perhaps Service faces;"
    ):
        here.target().submit(full())
    here.server.hangs_up = set()
    assert here.target().cancel("faces") == "removed what was left of faces: ConfigMap, Service, PodMonitor"
    here.target().submit(full())
    here.server.hangs_up = {"fetch jobs"}
    with pytest.raises(SubmitError, match="does not answer"):
        here.target().status("faces")


def test_ctrl_c_half_way_leaves_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deploy.submit.k8s.sending.adopt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        here.target().submit(full())
    assert here.server.there() == set()


def test_two_runs_of_one_name(here: Here) -> None:
    here.target().submit(full())
    before = here.server.there()
    here.server.said.clear()
    with pytest.raises(SubmitError, match="ConfigMap faces in namespace ml exists already: give another --name"):
        here.target().submit(full())
    assert here.server.there() == before, "the first one stays as it is"
    assert not [line for line in here.server.said if line.startswith("create")]
    here.target(namespace="elsewhere").submit(full())


def test_a_run_that_is_over_makes_room(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the next one of its name: with its pods, whose output would be taken for the new one's."""
    monkeypatch.setattr(removal, "POLL_SECONDS", 0.01)
    server, target = here.server, here.target()
    target.clear("faces")  # there is none
    target.submit(full())
    with pytest.raises(SubmitError, match="faces is not over: pfc cancel faces, or choose another name"):
        target.clear("faces")
    uid = server.found(WORKLOAD["job"], "faces")["metadata"]["uid"]
    server.add("v1/pods", pod("faces-0-a", 0, "Succeeded", owner=uid))
    server.report(WORKLOAD["job"], "faces", {"conditions": [{"type": "Complete", "status": "True"}]})
    target.clear("faces")
    assert server.there() == set()
    target.submit(full())
    target.cancel("faces")
    with pytest.raises(SubmitError, match="its nodes still write: wait until pfc status faces is unknown"):
        target.clear("faces")
    server.finish(WORKLOAD["job"], "faces")
    target.submit(full())
    server.report(WORKLOAD["job"], "faces", {"conditions": [{"type": "Failed", "status": "True"}]})
    server.add("v1/pods", pod("faces-0-b", 0, "Running"))
    monkeypatch.setattr(removal, "CLEARING_SECONDS", 0.0)
    with pytest.raises(SubmitError, match="does not go; try again in a minute") as raised:
        target.clear("faces")
    assert raised.value.code == 1


def test_a_claim_that_one_may_not_look_for(here: Here) -> None:
    missing = full(volumes=(*full().volumes, Volume("absent", "/x")))
    with pytest.raises(SubmitError, match="--volume absent: there is no PersistentVolumeClaim absent in namespace ml"):
        here.target().submit(missing)
    here.server.refusals = {"fetch persistentvolumeclaims": (403, "no")}
    here.target().submit(missing)


def test_a_job_of_that_name_which_is_not_ours(here: Here) -> None:
    here.server.add("batch/v1/jobs", {"metadata": {"name": "faces"}, "spec": {"completions": 1}})
    with pytest.raises(
        SubmitError, match=r"Job faces in namespace ml exists already: .* \(pfc cancel faces --namespace ml"
    ):
        here.target().submit(full())
    assert here.server.there() == {"jobs/faces"}
    with pytest.raises(SubmitError, match="no run faces in namespace ml"):
        here.target().cancel("faces")
    assert here.server.there() == {"jobs/faces"}, "nor is it ours to remove"


@pytest.mark.parametrize(
    ("refusal", "told", "code"),
    [
        (
            {"create services": (422, 'Service "faces" is invalid: spec.ports[0].port: Invalid value')},
            "the cluster finds Service faces in namespace ml invalid: .*Invalid value",
            2,
        ),
        (
            {"* podmonitors": (404, "the server could not find the requested resource")},
            "the cluster knows no PodMonitor: install the Prometheus operator, or leave out --pod-monitor",
            2,
        ),
        ({"create *": (404, 'namespaces "ml" not found')}, "there is no namespace ml: create it", 2),
        ({"create *": (500, "try later")}, "cannot create ConfigMap faces .* the cluster answers 500: try later", 1),
    ],
)
def test_refusals_are_one_line(here: Here, refusal: Any, told: str, code: int) -> None:
    here.server.refusals = refusal
    with pytest.raises(SubmitError, match=told) as raised:
        here.target().submit(full())
    assert "\n" not in str(raised.value)
    assert raised.value.code == code
    assert here.server.there() == set()


@pytest.mark.parametrize(("kind", "advice"), [("jobset", "install JobSet"), ("trainjob", "install Kubeflow Trainer")])
def test_a_kind_that_is_not_installed(here: Here, kind: Any, advice: str) -> None:
    here.server.refusals = {f"* {plural}": (404, "404 page not found") for plural in SENT[kind][2:]}
    with pytest.raises(SubmitError, match=f"the cluster knows no .*: {advice}.*, or use --kind job"):
        here.target(kind=kind).submit(full())
    assert here.server.there() == set()


def test_nobody_there(tmp_path: Path) -> None:
    kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{free_port()}")
    target = KubernetesTarget(Options(kubeconfig=kubeconfig))
    for ask in (lambda: target.submit(full()), lambda: target.status("faces"), lambda: target.cancel("faces")):
        with pytest.raises(SubmitError, match=r"http://127.0.0.1:\d+ does not answer \(.*refused") as raised:
            ask()
        assert raised.value.code == 1


def test_contexts_and_namespaces(here: Here) -> None:
    here.target(context="there").submit(full())
    assert here.server.objects["batch/v1/jobs", "elsewhere", "faces"].raw["spec"]["completions"] == 3
    here.target(context="there", namespace="third").submit(full())
    assert here.server.found("batch/v1/jobs", "faces", "third")["metadata"]["namespace"] == "third"
    with pytest.raises(SubmitError, match=r"context nowhere: .*; give another one by --kubeconfig and --context"):
        here.target(context="nowhere").submit(full())


def test_in_a_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own service account, where there is no kubeconfig; its namespace is that of the run."""
    for name, text in (("TOKEN", "secret"), ("CERT", "-----BEGIN CERTIFICATE-----"), ("namespace", "team\n")):
        (tmp_path / name).write_text(text)
    loader = "kubernetes.config.incluster_config.SERVICE_"
    monkeypatch.setattr(f"{loader}TOKEN_FILENAME", str(tmp_path / "TOKEN"))
    monkeypatch.setattr(f"{loader}CERT_FILENAME", str(tmp_path / "CERT"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "absent"))
    monkeypatch.setattr("deploy.submit.k8s.connection.OWN_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert KubernetesTarget(Options()).place() == {"context": None, "namespace": "team", "kubeconfig": None}
    assert KubernetesTarget(Options(namespace="other")).place()["namespace"] == "other"
    cluster = connect(Options())
    assert (cluster.host, cluster.namespace) == ("https://10.0.0.1:443", "team")
    assert cluster.kubectl_delete([]) == "kubectl --namespace team delete --ignore-not-found"


@pytest.mark.parametrize("text", ["", "{", "a: [b", "- 1"])
def test_a_broken_kubeconfig(tmp_path: Path, text: str) -> None:
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(SubmitError, match=f"kubeconfig {tmp_path}/kubeconfig: ") as raised:
        KubernetesTarget(Options(kubeconfig=tmp_path / "kubeconfig")).status("faces")
    assert "\n" not in str(raised.value)


def test_a_run_that_may_not_be_seen(here: Here) -> None:
    here.server.refusals = {"fetch jobsets": (403, "no"), "fetch trainjobs": (403, "no")}
    status = here.target().status("faces")
    assert status.state == "unknown"
    assert status.detail == "no run faces in namespace ml (not allowed to look for a JobSet or TrainJob)"
    with pytest.raises(SubmitError, match=r"no run faces in namespace ml \(not allowed to look for a JobSet"):
        here.target().cancel("faces")


def test_a_run_that_may_not_be_seen_is_not_taken_apart(here: Here) -> None:
    here.target(kind="jobset").submit(full())
    there = here.server.there()
    here.server.refusals = {"fetch jobsets": (403, "no")}
    with pytest.raises(SubmitError, match=r"cannot be told to end \(not allowed to look for a JobSet\)"):
        here.target().cancel("faces")
    assert here.server.there() == there


def test_what_a_controller_makes_is_not_the_run(here: Here) -> None:
    """Kubeflow Trainer makes a JobSet of the same name, and would make it again."""
    target = here.target(kind="trainjob")
    target.submit(full())
    made = {"name": "faces", "labels": labels("faces"), "ownerReferences": [{"uid": "uid-x", "controller": True}]}
    here.server.add(WORKLOAD["jobset"], {"metadata": made, "spec": {}})
    assert target.status("faces").state == "waiting"
    assert target.cancel("faces").startswith("TrainJob faces in namespace ml: its nodes write a checkpoint")
    assert target.status("faces").state == "cancelled"


def test_cancelling_leaves_others_alone(here: Here) -> None:
    here.server.add("v1/services", {"metadata": {"name": "faces", "labels": {"app": "of somebody else"}}})
    here.server.add("v1/configmaps", {"metadata": {"name": "faces", "labels": labels("faces")}})
    assert here.target().cancel("faces") == "removed what was left of faces: ConfigMap"
    assert here.server.there() == {"services/faces"}


def test_objects_that_were_applied_by_hand_go_with_the_job(here: Here) -> None:
    for document in yaml.safe_load_all(here.target(pod_monitor=False).render(full())):
        here.server.add(here.resource(document["kind"].lower() + "s"), document)
    here.target().cancel("faces")
    here.server.finish(WORKLOAD["job"], "faces")
    assert here.server.there() == set()


def test_how_a_run_stands(here: Here) -> None:
    """Through its life, as controllers and kubelets would report it."""
    target, server = here.target(), here.server
    target.submit(full(nodes=2))

    def conditions(**states: Any) -> None:
        found = [{"type": kind, "status": "True", **more} for kind, more in states.items()]
        server.report("batch/v1/jobs", "faces", {"conditions": found})

    conditions(Suspended={})
    assert target.status("faces").detail == "in queue training"
    conditions()
    server.add("v1/pods", pod("faces-0-a", 0, "Running"))
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
    server.add("v1/pods", pod("faces-1-a", 1, "Pending", conditions=[unschedulable]))
    server.add("v1/pods", pod("other-0-a", 0, "Running", run="other"))
    status = target.status("faces")
    assert (status.state, status.detail) == ("waiting", "1 of 2 nodes up; faces-1-a: Unschedulable: no GPU")
    server.report("v1/pods", "faces-1-a", {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})
    status = target.status("faces")
    assert (status.state, status.detail) == ("running", "2 nodes, on 1 of them it takes steps")
    for node in (0, 1):
        ended = {"containerStatuses": [{"state": {"terminated": {"exitCode": 75}}}], "phase": "Failed"}
        server.report("v1/pods", f"faces-{node}-a", ended)
    status = target.status("faces")
    assert (status.state, status.exit_code) == ("stopped", 75)
    for node in (0, 1):
        again = pod(f"faces-{node}-b", node, "Running")
        again["metadata"]["creationTimestamp"] = "2026-11-26T11:00:00Z"
        server.add("v1/pods", again)
    assert target.status("faces").state == "running"
    conditions(Complete={})
    status = target.status("faces")
    assert (status.state, status.exit_code) == ("done", 0)


def test_nothing_is_sent_of_what_is_refused(here: Here) -> None:
    with pytest.raises(SubmitError, match="a folder of the host"):
        here.target(pod_monitor=False).submit(bare(volumes=(replace(bare().volumes[0], source="/srv/runs"),)))
    assert here.server.said == []
