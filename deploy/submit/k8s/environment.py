"""The environment of a node's launcher."""

from deploy.submit.job import Job
from deploy.submit.k8s.contract import INDEX_ANNOTATION, KILL_MARGIN_SECONDS, MASTER_PORT, MEETING_SECONDS, Document


def place(job: Job, master: str) -> list[Document]:
    """Where this pod stands among the nodes, as torchrun reads it. master: host name of the first pod."""
    index = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX_ANNOTATION}']"}}
    return [
        _value("PET_NNODES", str(job.nodes)),
        _value("PET_NPROC_PER_NODE", str(job.ranks_per_node)),
        {"name": "PET_NODE_RANK", "valueFrom": index},
        _value("PET_MASTER_ADDR", master),
        _value("PET_MASTER_PORT", str(MASTER_PORT)),
        # Kubernetes starts all nodes again, and counts; a launcher that did so too would multiply the limits.
        _value("PET_MAX_RESTARTS", "0"),
    ]


def settings(job: Job) -> list[Document]:
    """All else: ours first, then what the user has set, then references to secrets."""
    ours = {
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(job.grace_seconds - KILL_MARGIN_SECONDS),
        # Pods come as their machines have pulled the image, and wait for one whose machine is lost.
        "PFC_MEETING_SECONDS": str(MEETING_SECONDS),
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",  # the root file system is read-only; caches must go somewhere
    }
    values = {**ours, **job.passed_through, **job.environment}
    return [_value(name, text) for name, text in values.items()] + [
        {"name": name, "valueFrom": {"secretKeyRef": _reference(where)}} for name, where in sorted(job.secrets.items())
    ]


def _value(name: str, text: str) -> Document:
    # Kubernetes replaces $(OTHER) in values, and takes $$ for $.
    return {"name": name, "value": text.replace("$", "$$")}


def _reference(where: str) -> Document:
    secret, _, key = where.partition("/")
    return {"name": secret, "key": key}
