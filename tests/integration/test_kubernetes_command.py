"""``pfc submit kubernetes`` and its companions as processes, against an API server that remembers: create to delete."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import pfc, running
from kubernetes_pods import pod
from submitting import Account, account

from deploy.submit.k8s.rules.reading import PodJob, pod_jobs

pytest.importorskip("kubernetes", reason="needs the Kubernetes client: make venv installs it")
pytest.importorskip("kmock", reason="needs kmock: make venv installs it")

from api_server import ApiServer, add_claims, api_server, write_kubeconfig

pytestmark = pytest.mark.integration

RUN = """
[run]
output = "/runs/My Faces_1"
[data]
records = "/data/faces"
num_identities = 20
[train]
steps = 10
[metrics]
port = 9500
"""
ALL = [
    *("--name", "faces", "--nodes", "2", "--gpus-per-node", "4", "--image", "registry.example/pfc:1.0"),
    *("--queue", "training", "--cpus", "8", "--memory", "64Gi", "--shm", "8Gi", "--grace", "900"),
    *("--toleration", "nvidia.com/gpu", "--toleration", "team=faces:NoSchedule", "--node-selector", "gpu=h100"),
    *("--volume", "face-data:/data:ro", "--volume", "runs:/runs", "--env", "NOTE=5$", "--pass-env", "NCCL_*"),
    *("--secret", "WANDB_API_KEY=wandb/api-key", "--time-limit", "86400", "--max-restarts", "5", "--pod-monitor"),
    *("--pod-monitor-label", "release=prometheus", "--service-account", "trainer", "--image-pull-secret", "registry"),
    *("--set", "optimizer.lr=0.25"),
]
LEAST = ["--image", "pfc:1", "--volume", "face-data:/data:ro", "--volume", "runs:/runs"]
CANCELLED = "faces: cancelled (exit code 75): no run faces in namespace ml\n"
WORKLOADS = {
    "job": "batch/v1/jobs",
    "jobset": "jobset.x-k8s.io/v1alpha2/jobsets",
    "trainjob": "trainer.kubeflow.org/v1alpha1/trainjobs",
}


@dataclass
class Cluster:
    server: ApiServer
    user: Account
    config: Path

    def submit(self, *arguments: str, kind: str = "job") -> tuple[str | Path, ...]:
        return ("submit", "kubernetes", self.config, "--kind", kind, *arguments)

    @property
    def everything(self) -> list[dict[str, Any]]:
        """All objects of the run, as they were sent, but for what the server and their owner add."""
        found = []
        for key, stored in self.server.objects.items():
            if not stored.deleted and key[0].plural not in ("persistentvolumeclaims", "pods"):
                raw = dict(stored.raw)
                dropped = ("uid", "namespace", "ownerReferences")
                raw["metadata"] = {name: value for name, value in raw["metadata"].items() if name not in dropped}
                found.append(raw)
        return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    config = tmp_path / "run.toml"
    config.write_text(RUN)
    with api_server() as (server, address):
        add_claims(server, "face-data", "runs")
        kubeconfig = write_kubeconfig(tmp_path / "kubeconfig", address)
        with account(tmp_path, KUBECONFIG=str(kubeconfig), NCCL_DEBUG="INFO") as user:
            yield Cluster(server, user, config)


def of_the_run(documents: list[dict[str, Any]]) -> tuple[PodJob, dict[str, Any]]:
    (job,) = pod_jobs(documents)
    return job, {each["name"]: each.get("value", each.get("valueFrom")) for each in job.containers[0]["env"]}


@pytest.mark.parametrize("kind", WORKLOADS)
def test_create_to_delete(cluster: Cluster, kind: str) -> None:
    server, user = cluster.server, cluster.user
    if kind == "job":
        shown = list(yaml.safe_load_all(user.done(*cluster.submit(*ALL, "--dry-run"))))
        assert server.said == []
        assert not user.state.exists()
    told = user.done(*cluster.submit(*ALL, kind=kind)).splitlines()
    assert told[0].endswith(" faces in namespace ml: 2 nodes of 4 ranks")
    assert told[1] == "pfc status faces; pfc logs faces --follow; pfc cancel faces"
    check_options(cluster.everything)
    if kind == "job":
        assert sorted(cluster.everything, key=str) == sorted(shown, key=str), "what is shown is what is sent"
    server.add("v1/pods", pod("faces-0-a", 0, "Running"))
    server.add("v1/pods", pod("faces-1-a", 1, "Pending"))
    server.printed = {"faces-0-a": ["step 1", "step 2"]}
    assert user.done("status", "faces").startswith(
        "faces                   kubernetes  waiting: 1 of 2 nodes up; faces-1-a"
    )
    assert user.done("logs", "faces") == "step 1\nstep 2\n"
    assert "its nodes write a checkpoint and end" in user.done("cancel", "faces")
    for node in (0, 1):
        server.finish("v1/pods", f"faces-{node}-a")
    if kind == "job":
        server.said.clear()
        with running(pfc("logs", "faces", "--follow"), cwd=user.folder, more=user.shell) as follower:
            wait_until(lambda: "list pods" in server.said)
            server.finish(WORKLOADS[kind], "faces")
            said = follower.communicate(timeout=60)
        assert said == ("-- cancelled: 0 of 2 nodes still to write a checkpoint and end\n", CANCELLED)
        assert follower.returncode == 75
    else:
        server.finish(WORKLOADS[kind], "faces")
    assert server.there() == set()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def check_options(documents: list[dict[str, Any]]) -> None:
    """Every option of ALL is somewhere in what the server was sent."""
    job, variables = of_the_run(documents)
    spec, container = job.pod, job.containers[0]
    assert {document["metadata"]["name"] for document in documents} == {"faces"}
    assert job.spec["completions"] == 2
    assert container["image"] == "registry.example/pfc:1.0"
    assert container["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": "4"}
    assert container["resources"]["requests"]["cpu"] == "8"
    assert [each["key"] for each in spec["tolerations"]] == ["nvidia.com/gpu", "team"]
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["serviceAccountName"] == "trainer"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["terminationGracePeriodSeconds"] == 900
    claims = {each["persistentVolumeClaim"]["claimName"] for each in spec["volumes"] if "persistentVolumeClaim" in each}
    assert claims == {"face-data", "runs"}
    shm = next(each for each in spec["volumes"] if each["name"] == "shm")
    assert shm["emptyDir"]["sizeLimit"] == "8Gi"
    assert (variables["NOTE"], variables["NCCL_DEBUG"]) == ("5$$", "INFO")
    assert variables["WANDB_API_KEY"] == {"secretKeyRef": {"name": "wandb", "key": "api-key"}}
    by_kind = {document["kind"]: document for document in documents}
    (workload,) = (by_kind[kind] for kind in ("Job", "JobSet", "TrainJob") if kind in by_kind)
    assert workload["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
    deadlines = (workload["spec"].get("activeDeadlineSeconds"), job.spec.get("activeDeadlineSeconds"))
    assert 86400 in deadlines
    of_a_set = by_kind.get("TrainingRuntime", {}).get("spec", {}).get("template", workload)["spec"]
    restarts = of_a_set.get("failurePolicy", {}).get("maxRestarts", job.spec.get("backoffLimitPerIndex"))
    assert restarts == 5
    assert by_kind["PodMonitor"]["metadata"]["labels"]["release"] == "prometheus"
    config = by_kind["ConfigMap"]["data"]["run.toml"]
    assert "lr = 0.25\n" in config
    assert 'address = "0.0.0.0"\n' in config, "else nobody could scrape it"
    if "Service" in by_kind:
        assert by_kind["Service"]["spec"]["clusterIP"] == "None"


def test_a_run_is_found_where_it_was_sent(cluster: Cluster, tmp_path: Path) -> None:
    """Contexts change, and so does KUBECONFIG; what was said at the submission is asked, or what is said now."""
    server, user = cluster.server, cluster.user
    user.done(*cluster.submit(*LEAST))
    options = user.status("my-faces-1")["options"]
    assert isinstance(options, dict)
    assert (options["context"], options["namespace"]) == ("here", "ml")
    kubeconfig = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig | {"current-context": "there"}))
    assert user.status("my-faces-1")["state"] == "waiting"
    user.settings["KUBECONFIG"] = str(tmp_path / "absent")
    assert user.status("my-faces-1")["state"] == "waiting"
    assert "no run my-faces-1 in namespace elsewhere" in user.done("status", "my-faces-1", "--context", "there")
    assert "no run my-faces-1 in namespace other" in user.refused("cancel", "my-faces-1", "--namespace", "other")
    # Of somebody else, or by kubectl from a repository.
    (user.state / "my-faces-1.json").unlink()
    assert "no run called 'my-faces-1' was submitted from here" in user.refused("cancel", "my-faces-1")
    place = ("--kubeconfig", "kubeconfig", "--namespace", "ml")
    server.add("v1/pods", pod("my-faces-1-0-a", 0, "Running", run="my-faces-1"))
    server.printed = {"my-faces-1-0-a": ["a step"]}
    assert user.done("logs", "my-faces-1", *place) == "a step\n"
    assert "its nodes write a checkpoint and end" in user.done("cancel", "my-faces-1", *place)


def test_followed_to_its_outcome(cluster: Cluster) -> None:
    server, user = cluster.server, cluster.user
    user.done(*cluster.submit(*LEAST))
    server.more.set()
    server.printed = {"my-faces-1-0-a": ["a step", "pfc: error: data.records /data/faces: no such file"]}
    said = server.printed["my-faces-1-0-a"][-1]
    uid = server.found(WORKLOADS["job"], "my-faces-1")["metadata"]["uid"]
    server.add("v1/pods", pod("my-faces-1-0-a", 0, "Failed", code=2, said=said, run="my-faces-1", owner=uid))
    failed = {"type": "Failed", "status": "True", "reason": "PodFailurePolicy", "message": "code 2"}
    server.report(WORKLOADS["job"], "my-faces-1", {"conditions": [failed]})
    followed = user.pfc("logs", "my-faces-1", "--follow")
    assert followed.code == 2
    assert followed.out.splitlines() == server.printed["my-faces-1-0-a"]
    assert followed.err == f"my-faces-1: bad input (exit code 2): {said}\n"
    # Submitted again, mended: what is left of the first one makes room.
    assert user.done(*cluster.submit(*LEAST, "--set", "data.records=/data/others"))
    assert user.status("my-faces-1")["state"] == "waiting"
    (config_map,) = (document for document in cluster.everything if document["kind"] == "ConfigMap")
    assert 'records = "/data/others"' in config_map["data"]["run.toml"]
    assert server.there() == {f"{plural}/my-faces-1" for plural in ("configmaps", "services", "jobs")}
    # Nor is an image without the package to be had by another try.
    said = "/usr/bin/python: No module named deploy"
    server.add("v1/pods", pod("my-faces-1-0-b", 0, "Failed", code=1, said=said, run="my-faces-1"))
    status = user.status("my-faces-1")
    unfit = f"image pfc:1 cannot run pfc ({said}): build it from docker/Dockerfile"
    assert (status["state"], status["detail"]) == (
        "waiting",
        f"0 of 1 node up; exit codes [1], to be started again ({unfit})",
    )
    failed |= {"reason": "MaxFailedIndexesExceeded"}
    server.report(WORKLOADS["job"], "my-faces-1", {"conditions": [failed]})
    status = user.status("my-faces-1")
    assert (status["state"], status["exit_code"], status["detail"]) == ("bad input", 2, unfit)


BAD_INPUT = [
    (["--name", "My_Faces"], "--name My_Faces: use lower-case letters, digits and '-'.*; my-faces would do"),
    ([*LEAST, "--nodes", "3", "--ranks-per-node", "7"], "20 identities for 21 ranks: .* start fewer ranks"),
    ([*LEAST[:2], *LEAST[4:]], "data.records /data/faces is on no volume.*CLAIM:/data/faces:ro"),
    ([*LEAST, "--volume", "absent:/x"], "there is no PersistentVolumeClaim absent in namespace ml: make it"),
]


@pytest.mark.parametrize(("arguments", "told"), BAD_INPUT, ids=["name", "ranks", "mount", "claim"])
def test_bad_input_is_one_line_and_leaves_nothing(cluster: Cluster, arguments: list[str], told: str) -> None:
    line = cluster.user.refused(*cluster.submit(*arguments))
    assert re.search(told, line), line
    assert cluster.server.there() == set()
    assert not list(cluster.user.folder.glob("state/*.json"))


def test_no_permission_leaves_nothing_or_says_what(cluster: Cluster, tmp_path: Path) -> None:
    server, user = cluster.server, cluster.user
    submit = cluster.submit(*LEAST, "--pod-monitor")
    server.refusals = {"create podmonitors": (403, 'User "me" cannot create resource "podmonitors"')}
    line = user.refused(*submit)
    assert 'not allowed to create PodMonitor my-faces-1 in namespace ml: User "me" cannot create' in line
    assert server.there() == set()
    assert "no run called 'my-faces-1'" in user.refused("status", "my-faces-1")
    server.refusals = {
        "create jobs": (403, "forbidden: exceeded quota: jobs"),
        "delete services": (403, "cannot delete"),
    }
    line = user.refused(*submit)
    assert "the quota has no room for Job my-faces-1 in namespace ml: forbidden: exceeded quota: jobs" in line
    kubectl = f"kubectl --kubeconfig {tmp_path}/kubeconfig --context here --namespace ml delete --ignore-not-found"
    assert line.endswith(
        "left behind: Service my-faces-1; once the cluster lets you: pfc cancel my-faces-1, or "
        f"{kubectl} services/my-faces-1"
    )
    server.refusals = {}
    assert user.done("cancel", "my-faces-1") == "removed what was left of my-faces-1: Service\n"
    assert server.there() == set()
    server.refusals = {"*": (401, "Unauthorized")}
    assert "the cluster does not know you (Unauthorized): log in again" in user.refused("status", "my-faces-1")


def test_ended_by_a_signal_half_way(cluster: Cluster) -> None:
    """By SIGTERM all is taken back; by SIGKILL the run can still be asked about, and what is left be cancelled."""
    server, user = cluster.server, cluster.user
    for number, code in ((signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)):
        server.slow = {"create services"}
        server.said.clear()
        with running(pfc(*cluster.submit(*LEAST)), cwd=user.folder, more=user.shell) as process:
            wait_until(lambda: "create services" in server.said)
            os.kill(process.pid, number)
            server.slow = set()
            said = process.communicate(timeout=60)[1]
        assert process.returncode == code, said
        if number == signal.SIGTERM:
            assert said == "pfc: error: interrupted; nothing half-done is left\n"
            assert server.there() == set()
            assert not list(user.folder.glob("state/*.json"))
    assert user.status("my-faces-1")["state"] == "unknown"
    assert "removed what was left of my-faces-1: ConfigMap" in user.done("cancel", "my-faces-1")
    assert server.there() == set()
