"""What belongs to a run in a cluster: by its label, and by its owner, with which it goes."""

from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.complaint import RefusedError
from deploy.submit.k8s.contract import RUN_LABEL, Document
from deploy.submit.k8s.job_set import REPLICATED_JOB

WORKLOADS = ("Job", "JobSet", "TrainJob")
COMPANIONS = ("ConfigMap", "Service", "PodMonitor", "TrainingRuntime")


def adopt(cluster: Cluster, companion: Document, *, owner: Document) -> None:
    """From now on ``companion`` is removed with ``owner``."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    change = {"metadata": {"ownerReferences": [reference]}}
    cluster.patch(companion["kind"], companion["metadata"]["name"], change)


def is_of(document: Document, run: str) -> bool:
    """Something else may have the same name."""
    return bool((document["metadata"].get("labels") or {}).get(RUN_LABEL) == run)


def workload(cluster: Cluster, run: str) -> tuple[Document | None, str]:
    """Whatever its kind; and words on where one was not allowed to look."""
    unseen = []
    for kind in WORKLOADS:
        try:
            document = cluster.read(kind, run)
        except RefusedError as error:
            if error.status != 403:
                raise
            unseen.append(kind)
            continue
        if document is not None and is_of(document, run) and not _is_made(document):
            return {**document, "kind": kind}, ""
    return None, f" (not allowed to look for a {' or '.join(unseen)})" if unseen else ""


def _is_made(document: Document) -> bool:
    """By another object, which would make it again: Kubeflow Trainer makes a JobSet of a TrainJob's own name."""
    return any(owner.get("controller") for owner in document["metadata"].get("ownerReferences") or [])


def companions(cluster: Cluster, run: str) -> list[Document]:
    """What is there of a run beside its workload, without kinds that one may not see."""
    found = []
    for kind in COMPANIONS:
        try:
            document = cluster.read(kind, run)
        except RefusedError as error:
            if error.status != 403:
                raise
            continue
        if document is not None and is_of(document, run):
            found.append({**document, "kind": kind})
    return found


def why_no_pods(cluster: Cluster, found: Document) -> str:
    """What the controller of the workload, or of the Job that a JobSet makes, complains of: a quota, an admission."""
    name = found["metadata"]["name"]
    names = [name] if found["kind"] == "Job" else [f"{name}-{REPLICATED_JOB}-0", name]
    return next((said for each in names if (said := cluster.last_warning(each))), "")
