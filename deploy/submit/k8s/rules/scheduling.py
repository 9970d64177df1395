"""On which machines pods may run."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import QUEUE_LABEL, Document
from deploy.submit.k8s.naming import is_label, is_label_key, is_label_value
from deploy.submit.k8s.rules.reading import of_kind, pod_jobs

EFFECTS = (None, "NoSchedule", "PreferNoSchedule", "NoExecute")


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Tolerations and selectors that mean nothing, a queue on something else than the workload."""
    for job in pod_jobs(documents):
        for toleration in job.pod.get("tolerations", []):
            if toleration.get("operator", "Equal") not in ("Equal", "Exists"):
                yield f"{job.owner}: toleration with operator {toleration['operator']}"
            if toleration.get("operator") == "Exists" and toleration.get("value"):
                yield f"{job.owner}: toleration with operator Exists and a value"
            if not toleration.get("key") and toleration.get("operator") != "Exists":
                yield f"{job.owner}: toleration without a key needs operator Exists"
            if toleration.get("effect") not in EFFECTS:
                yield f"{job.owner}: toleration with effect {toleration['effect']}"
        for key, value in job.pod.get("nodeSelector", {}).items():
            if not is_label_key(key) or not is_label_value(value):
                yield f"{job.owner}: nodeSelector {key}: {value} is not a label"
        if QUEUE_LABEL in job.labels:
            yield f"{job.owner}: {QUEUE_LABEL} on the pods: Kueue would queue each by itself"
    for document in documents:
        queue = document["metadata"].get("labels", {}).get(QUEUE_LABEL)
        if queue is not None and document not in list(of_kind(documents, "Job", "JobSet", "TrainJob")):
            yield f"{document['kind']}: {QUEUE_LABEL} goes on the workload"
        if queue is not None and not is_label(queue):
            yield f"{document['kind']}: queue {queue} is not a name"
