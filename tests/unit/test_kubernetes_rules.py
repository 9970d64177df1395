"""Rules between fields: nothing to say of what is rendered, and a line for each way to break it."""

import ast
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from kubernetes_jobs import full

from deploy.submit.k8s import rules
from deploy.submit.k8s.documents import documents
from deploy.submit.k8s.options import KINDS, Kind, Options
from deploy.submit.k8s.rules import problems
from deploy.submit.k8s.rules.reading import pod_jobs

pytestmark = pytest.mark.unit

QUEUE = "kueue.x-k8s.io/queue-name"


class Objects:
    """Of a run, to be broken; each mistake is set at a place that is easily written down."""

    def __init__(self, kind: Kind) -> None:
        self.all = documents(full(), Options(kind=kind, pod_monitor=True))

    def __getitem__(self, kind: str) -> Any:
        return next(document for document in self.all if document["kind"] == kind)

    @property
    def job(self) -> Any:
        (found,) = pod_jobs(self.all)
        return found.spec

    @property
    def rules(self) -> Any:
        return self.job["podFailurePolicy"]["rules"]

    @property
    def pod(self) -> Any:
        return self.job["template"]["spec"]

    @property
    def container(self) -> Any:
        return self.pod["containers"][0]

    @property
    def set(self) -> Any:
        last = self.all[-1]["kind"]
        return self["JobSet"]["spec"] if last == "JobSet" else self["TrainingRuntime"]["spec"]["template"]["spec"]

    def volume(self, name: str) -> Any:
        return next(volume for volume in self.pod["volumes"] if volume["name"] == name)

    def variable(self, name: str) -> Any:
        return next(variable for variable in self.container["env"] if variable["name"] == name)


Break = Callable[[Objects], object]


def put(place: Callable[[Objects], Any], key: Any, value: Any) -> Break:
    return lambda objects: place(objects).__setitem__(key, value)


def add(place: Callable[[Objects], Any], value: Any) -> Break:
    return lambda objects: place(objects).append(value)


def drop(place: Callable[[Objects], Any], key: Any) -> Break:
    return lambda objects: place(objects).__delitem__(key)


def a_job(objects: Objects) -> Any:
    return objects.job


def a_pod(objects: Objects) -> Any:
    return objects.pod


def a_container(objects: Objects) -> Any:
    return objects.container


def a_service(objects: Objects) -> Any:
    return objects["Service"]["spec"]


def policy(objects: Objects) -> Any:
    return objects.set["failurePolicy"]


def stopped(objects: Objects) -> Any:
    return objects.rules[1]["onExitCodes"]


def monitor(objects: Objects) -> Any:
    return objects["PodMonitor"]["spec"]


def numbers(objects: Objects) -> Any:
    return objects["TrainJob"]["spec"]["trainer"]


def security(objects: Objects) -> Any:
    return objects.container["securityContext"]


JOB: Kind = "job"
SET: Kind = "jobset"
TRAIN: Kind = "trainjob"
CODES = {"operator": "In", "values": [3]}
CASES: list[tuple[Kind, Break, str]] = [
    # identity
    (JOB, put(lambda o: o["ConfigMap"]["metadata"], "name", "Faces"), "ConfigMap Faces: not a name"),
    (JOB, put(lambda o: o["Service"]["metadata"], "name", "1st"), "Service 1st: not a name"),
    (JOB, lambda o: o.all.append(o["Service"]), "Service faces: there are two"),
    (JOB, put(lambda o: o["Service"]["metadata"]["labels"], "x", "no label"), "x: no label is not a label"),
    (SET, put(lambda o: o["JobSet"]["metadata"], "name", "n" * 50), "its pods are called n+-node-0-2-xxxxx, longer"),
    (JOB, put(lambda o: o.job["template"]["metadata"]["labels"], "/", "x"), "pods of Job faces: /: x is not a label"),
    (JOB, put(lambda o: o["Job"]["metadata"], "namespace", "other"), "several namespaces"),
    # completion
    (JOB, put(a_job, "completionMode", "NonIndexed"), "completionMode NonIndexed"),
    (SET, put(a_job, "parallelism", 2), "completions 3, parallelism 2"),
    (JOB, put(a_job, "podReplacementPolicy", "TerminatingOrFailed"), "podReplacementPolicy must be Failed"),
    (JOB, put(a_job, "backoffLimitPerIndex", -1), "backoffLimitPerIndex is negative"),
    (JOB, drop(a_job, "backoffLimitPerIndex"), "maxFailedIndexes goes with backoffLimitPerIndex"),
    (JOB, put(a_job, "activeDeadlineSeconds", 0), "activeDeadlineSeconds must be positive"),
    (TRAIN, put(a_pod, "restartPolicy", "OnFailure"), "restartPolicy must be Never"),
    (SET, put(policy, "maxRestarts", -1), "JobSet: maxRestarts is negative"),
    (SET, put(policy, "restartStrategy", "Always"), "restartStrategy Always is none of"),
    (
        SET,
        put(lambda o: policy(o)["rules"][0], "action", "FailJob"),
        "action FailJob is none of FailJobSet",
    ),
    (
        TRAIN,
        add(lambda o: policy(o)["rules"][0]["onJobFailureReasons"], "Bad"),
        "no Job fails with reason Bad",
    ),
    # exit codes
    (JOB, put(a_job, "podFailurePolicy", {"rules": []}), "podFailurePolicy has 0 rules"),
    (JOB, put(lambda o: o.rules[3], "action", "Restart"), "action Restart is none of"),
    (SET, put(lambda o: o.rules[3], "action", "FailIndex"), "FailIndex goes with backoffLimitPerIndex"),
    (JOB, put(lambda o: o.rules[0], "onExitCodes", CODES), "either onExitCodes or onPodConditions"),
    (JOB, put(lambda o: o.rules[0]["onPodConditions"][0], "status", ""), "status '' of condition DisruptionTarget"),
    (JOB, put(lambda o: o.rules[3]["onExitCodes"], "operator", "Not"), "operator Not"),
    (JOB, put(lambda o: o.rules[3]["onExitCodes"], "values", [75, 2]), r"values \[75, 2\]: sorted"),
    (JOB, put(stopped, "values", [75, 75]), r"values \[75, 75\]: sorted, each once"),
    (JOB, put(stopped, "values", [75, 256]), r"values \[75, 256\]: .* 0 to 255"),
    (JOB, put(stopped, "values", [0, 75]), "exit code 0 is no failure"),
    (
        SET,
        put(stopped, "containerName", "trainer"),
        "containerName trainer: the pod has no",
    ),
    (JOB, drop(lambda o: o.rules, 1), "exit code 75 means Count, not Ignore"),
    (JOB, put(lambda o: o.rules[2], "action", "Count"), "exit code 2 means Count, not FailJob"),
    (JOB, put(lambda o: o.rules[3], "action", "Ignore"), "exit code 1 means Ignore, not Count"),
    # meeting
    (JOB, drop(a_service, "clusterIP"), "clusterIP must be None"),
    (JOB, put(a_service, "publishNotReadyAddresses", False), "publishNotReadyAddresses must be true"),
    (
        JOB,
        put(lambda o: a_service(o)["selector"], "app", "other"),
        "Service faces: its selector finds none",
    ),
    (JOB, drop(a_pod, "subdomain"), "no pod has it as its subdomain"),
    (JOB, lambda o: o.all.remove(o["Service"]), "subdomain faces is not a Service of the run"),
    (SET, put(lambda o: o.set["network"], "enableDNSHostnames", False), "subdomain None is not a Service of the run"),
    (JOB, put(lambda o: o.variable("PET_MASTER_ADDR"), "value", "faces-1.faces"), "the first pod is faces-0.faces"),
    (SET, put(lambda o: o.set["network"], "subdomain", "net"), "the first pod is faces-node-0-0.net"),
    (JOB, put(lambda o: o.variable("PET_NNODES"), "value", "2"), "PET_NNODES is not the number of completions"),
    (
        JOB,
        put(lambda o: o.variable("PET_NODE_RANK"), "valueFrom", {}),
        "PET_NODE_RANK is not the pod's",
    ),
    # environment
    (JOB, add(lambda o: o.container["env"], {"name": "A=B", "value": ""}), "variable A=B: not a name"),
    (TRAIN, add(lambda o: o.container["env"], {"name": "HOME", "value": "/"}), "variable HOME: there are two"),
    (JOB, drop(lambda o: o.variable("HOME"), "value"), "HOME: needs either a value or a reference"),
    (JOB, put(lambda o: o.variable("HOME"), "value", 1), "HOME: its value must be text"),
    (JOB, put(lambda o: o.variable("WANDB_API_KEY")["valueFrom"]["secretKeyRef"], "key", ""), "not a key of a secret"),
    (JOB, put(a_pod, "terminationGracePeriodSeconds", 870), "less than the pod's grace time of 870 s"),
    # metrics
    (JOB, put(lambda o: o.container["ports"][0], "name", "metrics-of-rank-0"), "port name 'metrics-of-rank-0'"),
    (JOB, put(lambda o: o.container["ports"][1], "containerPort", 9500), "two ports of one name or number"),
    (JOB, put(lambda o: o.container["ports"][1], "containerPort", 70000), "1 to 65535"),
    (SET, put(lambda o: o.container["readinessProbe"]["httpGet"], "port", "http"), "readinessProbe asks a port"),
    (JOB, drop(a_container, "startupProbe"), "a liveness probe without a startup probe"),
    (
        JOB,
        put(lambda o: monitor(o)["selector"]["matchLabels"], "a", "b"),
        "PodMonitor faces: its selector finds",
    ),
    (
        JOB,
        drop(lambda o: monitor(o)["podMetricsEndpoints"], 0),
        "PodMonitor faces: asks .*, the pods have",
    ),
    (JOB, add(lambda o: monitor(o)["podMetricsEndpoints"], {"port": "metrics-0"}), "asks a port twice"),
    # volumes
    (JOB, add(lambda o: o.pod["volumes"], {"name": "tmp", "emptyDir": {}}), "two volumes of one name"),
    (
        JOB,
        put(lambda o: o.pod["volumes"], 1, {"name": "tmp", "hostPath": {"path": "/"}}),
        "volume tmp is .*hostPath",
    ),
    (JOB, lambda o: o.all.remove(o["ConfigMap"]), "ConfigMap faces with run.toml is not among the objects"),
    (JOB, put(lambda o: o["ConfigMap"], "data", {"other.toml": ""}), "ConfigMap faces with run.toml is not among"),
    (JOB, put(lambda o: o.volume("shm")["emptyDir"], "medium", "memory"), "medium memory of volume shm"),
    (JOB, drop(lambda o: o.volume("shm")["emptyDir"], "sizeLimit"), "volume shm in memory without sizeLimit"),
    (JOB, add(lambda o: o.container["volumeMounts"], {"name": "tmp", "mountPath": "/data"}), "two volumes at one path"),
    (JOB, add(lambda o: o.container["volumeMounts"], {"name": "no", "mountPath": "/no"}), "/no is of no volume"),
    (JOB, add(lambda o: o.container["volumeMounts"], {"name": "tmp", "mountPath": "no"}), "no is not absolute"),
    (JOB, add(lambda o: o.pod["volumes"], {"name": "more", "emptyDir": {}}), "volume more is mounted nowhere"),
    (TRAIN, put(lambda o: o.container["volumeMounts"][0], "mountPath", "/etc/other"), "nothing is mounted at /etc/pfc"),
    # amounts
    (JOB, put(lambda o: o.container["resources"]["requests"], "cpu", "8 cores"), "'8 cores' is no amount"),
    (JOB, put(lambda o: o.container["resources"]["requests"], "memory", "33Gi"), "request of memory above its limit"),
    (JOB, put(lambda o: o.container["resources"]["limits"], "nvidia.com/gpu", "3"), "must be the same whole number"),
    (JOB, put(lambda o: o.volume("shm")["emptyDir"], "sizeLimit", "32Gi"), "/dev/shm counts as memory"),
    # scheduling
    (JOB, put(lambda o: o.pod["tolerations"][0], "operator", "In"), "toleration with operator In"),
    (JOB, put(lambda o: o.pod["tolerations"][0], "value", "x"), "toleration with operator Exists and a value"),
    (JOB, drop(lambda o: o.pod["tolerations"][1], "key"), "toleration without a key needs operator Exists"),
    (JOB, put(lambda o: o.pod["tolerations"][0], "effect", "No"), "toleration with effect No"),
    (JOB, put(a_pod, "nodeSelector", {"a b": "c"}), "nodeSelector a b: c is not a label"),
    (JOB, put(lambda o: o.job["template"]["metadata"]["labels"], QUEUE, "q"), "on the pods: Kueue would queue each"),
    (JOB, put(lambda o: o["Service"]["metadata"]["labels"], QUEUE, "q"), "Service: .* goes on the workload"),
    (JOB, put(lambda o: o["Job"]["metadata"]["labels"], QUEUE, "Q"), "Job: queue Q is not a name"),
    # security
    (JOB, put(lambda o: o.pod["securityContext"], "runAsUser", 0), "runs as root"),
    (JOB, put(lambda o: o.pod["securityContext"], "runAsNonRoot", False), "runs as root"),
    (JOB, put(lambda o: o.pod["securityContext"]["seccompProfile"], "type", "Unconfined"), "seccompProfile must be"),
    (JOB, put(a_pod, "hostNetwork", True), "Job faces: hostNetwork"),
    (JOB, drop(a_pod, "automountServiceAccountToken"), "a token for the API server"),
    (SET, put(security, "allowPrivilegeEscalation", True), "allowPrivilegeEscalation must be false"),
    (JOB, put(security, "privileged", True), "Job faces: privileged"),
    (JOB, put(lambda o: security(o)["capabilities"], "add", ["SYS_ADMIN"]), "drop ALL capabilities and add none"),
    (TRAIN, drop(security, "readOnlyRootFilesystem"), "readOnlyRootFilesystem must be true"),
    (JOB, put(security, "runAsUser", 0), "its container runs as root"),
    # Kubeflow Trainer
    (
        TRAIN,
        put(numbers, "env", [{"name": "PET_NNODES"}]),
        "TrainJob faces: PET_NNODES is",
    ),
    (
        TRAIN,
        add(lambda o: o.container["env"], {"name": "PET_X", "value": ""}),
        "TrainingRuntime faces: PET_X is set",
    ),
    (TRAIN, lambda o: o.all.remove(o["TrainingRuntime"]), "TrainingRuntime faces is not among the objects"),
    (TRAIN, put(numbers, "numNodes", 2), r"numNodes 2, completions \[3\]"),
    (
        TRAIN,
        put(numbers, "resourcesPerNode", {}),
        "resourcesPerNode can make Trainer",
    ),
    (
        TRAIN,
        drop(lambda o: o["TrainingRuntime"]["spec"]["mlPolicy"], "torch"),
        "without mlPolicy.torch nobody",
    ),
    (
        TRAIN,
        drop(lambda o: o.set["replicatedJobs"][0]["template"], "metadata"),
        "Trainer looks for job and container",
    ),
]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_say_of_what_is_rendered(kind: Kind) -> None:
    assert list(problems(Objects(kind).all)) == []


@pytest.mark.parametrize(("kind", "breaks", "told"), CASES, ids=[told for _, _, told in CASES])
def test_each_mistake_has_its_line(kind: Kind, breaks: Break, told: str) -> None:
    objects = Objects(kind)
    breaks(objects)
    found = list(problems(objects.all))
    assert any(re.search(told, problem) for problem in found), found
    assert not any("\n" in problem for problem in found)


def test_every_line_of_the_rules_is_said_by_some_mistake() -> None:
    """No rule is without a case above: the lines that yield a problem have all been run."""
    folder = str(rules.__file__).rpartition("/")[0]
    ran: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(folder):
            return None
        if event == "line":
            ran.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        for kind, breaks, _ in CASES:
            objects = Objects(kind)
            breaks(objects)
            list(problems(objects.all))
    finally:
        sys.settrace(former)
    for rule in rules.RULES:
        path = inspect.getsourcefile(rule) or ""
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
        lines = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Yield)}
        silent = {line for line in lines if (path, line) not in ran}
        assert lines
        assert not silent, f"{path}: no case for lines {sorted(silent)}"
