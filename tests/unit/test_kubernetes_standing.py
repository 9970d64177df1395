"""How a run stands, from what controllers and kubelets report."""

import re
from typing import Any

import pytest
from kubernetes_jobs import full

from deploy.submit.k8s.contract import INDEX_ANNOTATION
from deploy.submit.k8s.documents import documents
from deploy.submit.k8s.options import KINDS, Kind, Options
from deploy.submit.k8s.standing import is_over, nodes, standing
from deploy.submit.target import STATES

pytestmark = pytest.mark.unit


def workload(kind: Kind = "job", queue: str | None = None, deleted: bool = False, **conditions: Any) -> Any:
    document = documents(full(queue=queue, nodes=2), Options(kind=kind))[-1]
    document["status"] = {"conditions": [{"type": k, "status": "True", **v} for k, v in conditions.items()]}
    if deleted:
        document["metadata"]["deletionTimestamp"] = "2026-11-26T10:00:00Z"
    return document


def pod(
    node: int,
    phase: str,
    *,
    code: int | None = None,
    said: str = "",
    waiting: Any = None,
    ready: bool = False,
    at: int = 0,
) -> Any:
    reason = {"reason": "StartError"} if code == 128 else {}
    state: Any = {"terminated": {"exitCode": code, "message": said, **reason}} if code is not None else {}
    state |= {"waiting": waiting} if waiting else {}
    return {
        "metadata": {
            "name": f"faces-{node}-{at}",
            "annotations": {INDEX_ANNOTATION: str(node)},
            "creationTimestamp": f"2026-11-26T10:00:{at:02d}Z",
        },
        "spec": {"containers": [{"name": "trainer", "image": "registry/other:1"}]},
        "status": {
            "phase": phase,
            "containerStatuses": [{"state": state}],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


BOTH = [pod(0, "Running", ready=True), pod(1, "Running")]
ENDED = {"reason": "PodFailurePolicy", "message": "Container trainer failed with exit code 2 matching FailJob rule"}
SAID = "step 1\npfc: error: rank 0: run.toml: 'data.records' is missing\npfc launch: rank 0 exited with 2"
OVER = {"reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
LIMIT = {"reason": "MaxFailedIndexesExceeded", "message": "Job has exceeded\nthe limit"}
NO_MODULE = "/usr/bin/python: No module named deploy.launch"
NO_PYTHON = 'exec: "python": executable file\nnot found in $PATH'
UNFIT = "^image registry/other:1 cannot run pfc .* build it from docker/Dockerfile$"
PULL = {"reason": "ImagePullBackOff", "message": "no such image"}


@pytest.mark.parametrize(
    ("document", "pods", "state", "detail", "code"),
    [
        (workload(), [], "waiting", "0 of 2 nodes up; no pod yet for the others", None),
        (workload(queue="q", Suspended={}), [], "waiting", "in queue q", None),
        (workload(Suspended={}), [], "stopped", "suspended; with spec.suspend = false it goes on", 75),
        (workload(), [pod(0, "Pending", waiting=PULL)], "waiting", "faces-0-0: ImagePullBackOff: no such image", None),
        (workload(), [pod(0, "Pending")], "waiting", "faces-0-0: not scheduled yet", None),
        (workload(), BOTH, "running", "2 nodes, on 1 of them it takes steps", None),
        (workload(), BOTH[:1], "waiting", "1 of 2 nodes up; no pod yet", None),
        (workload(), [pod(0, "Failed", code=75), pod(1, "Failed", code=75)], "stopped", "starts it again", 75),
        (workload(), [pod(0, "Failed", code=1), pod(1, "Failed", code=75)], "waiting", r"exit codes \[1, 75\]", None),
        (workload(), [pod(0, "Failed", code=1, said=SAID)], "waiting", r"\(pfc: error: rank 0: run.toml", None),
        (workload(), [BOTH[1], pod(0, "Running", at=5), pod(0, "Failed", code=1, at=4)], "running", "2 nodes", None),
        (workload(Complete={}), [pod(0, "Succeeded", code=0)], "done", "finished on 2 nodes", 0),
        (workload("jobset", Completed={}), [], "done", "finished on 2 nodes", 0),
        (workload("trainjob", Complete={}), [], "done", "finished on 2 nodes", 0),
        (workload(SuccessCriteriaMet={}), BOTH, "done", "finished on 2 nodes", 0),
        (
            workload(Failed=ENDED),
            [pod(0, "Failed", code=2, said=SAID)],
            "bad input",
            "^pfc: error: rank 0: run.toml",
            2,
        ),
        (workload(Failed=ENDED), [], "bad input", "PodFailurePolicy: Container trainer failed with exit code 2", 2),
        (workload("jobset", Failed={"reason": "x"}), [pod(1, "Failed", code=2)], "bad input", "x", 2),
        (
            workload(FailureTarget=LIMIT),
            [pod(0, "Failed", code=1)],
            "failed",
            "Exceeded: Job has exceeded the limit",
            1,
        ),
        (
            workload(Failed=LIMIT),
            [pod(0, "Failed", code=137, said="pfc launch: killed")],
            "failed",
            "launch: killed",
            1,
        ),
        (workload(Failed=LIMIT), [pod(0, "Failed", code=1, said=NO_MODULE)], "bad input", UNFIT, 2),
        (workload(Failed=LIMIT), [pod(1, "Failed", code=128, said=NO_PYTHON)], "bad input", UNFIT, 2),
        (workload(), [pod(0, "Failed", code=1, said=NO_MODULE)], "waiting", "image registry/other:1 cannot run", None),
        (workload(Failed=OVER), [], "stopped", "its time is over, .* told to write a checkpoint", 75),
        (workload(Failed=OVER), [pod(0, "Failed", code=1)], "failed", "DeadlineExceeded", 1),
        (workload(deleted=True), BOTH, "cancelled", "2 of 2 nodes still to write", None),
        (workload(deleted=True, Complete={}), [], "cancelled", "0 of 2 nodes still to write", None),
    ],
)
def test_standing(document: Any, pods: list[Any], state: str, detail: str, code: int | None) -> None:
    status = standing(document, pods)
    assert (status.state, status.exit_code) == (state, code), status
    assert re.search(detail, status.detail), status.detail
    assert "\n" not in status.detail
    assert status.state in STATES


def test_why_there_are_no_pods() -> None:
    assert standing(workload(), [], "exceeded quota").detail == "no pod can be made: exceeded quota"
    assert standing(workload(), BOTH, "exceeded quota").state == "running", "of another time"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (workload(), False),
        (workload(Suspended={}), False),
        (workload(deleted=True), False),
        (workload(Complete={}), True),
        (workload("jobset", Completed={}), True),
        (workload(Failed=LIMIT), True),
        (workload(FailureTarget=OVER), True),
    ],
)
def test_over(document: Any, expected: bool) -> None:
    assert is_over(document) is expected


def test_a_condition_that_does_not_hold() -> None:
    document = workload(Complete={}, Failed=ENDED)
    for condition in document["status"]["conditions"]:
        condition["status"] = "False"
    assert standing(document, BOTH).state == "running"


@pytest.mark.parametrize("kind", KINDS)
def test_number_of_nodes(kind: Kind) -> None:
    assert nodes(workload(kind)) == 2
