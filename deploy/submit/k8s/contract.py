"""What the pods of a run look like to everybody else (deploy/CONTRACT.md): names, labels, paths, exit codes."""

from typing import Any

Document = dict[str, Any]  # one Kubernetes object, as YAML and JSON have it

NAME_LABEL = "app.kubernetes.io/name"
RUN_LABEL = "app.kubernetes.io/instance"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"

CONFIG_FOLDER = "/etc/pfc"
CONFIG_KEY = "run.toml"
MASTER_PORT = 29500
USER_ID = 10001
KILL_MARGIN_SECONDS = 30  # the launcher ends its ranks so long before the kubelet ends the launcher
MEETING_SECONDS = 600  # that launchers wait for those of the other nodes

BAD_INPUT = 2
STOPPED = 75


def labels(name: str) -> dict[str, str]:
    """By which every object of the run ``name`` is found."""
    return {NAME_LABEL: "pfc", RUN_LABEL: name}


def metadata(name: str, namespace: str | None) -> Document:
    """namespace None: whatever the reader's own context says."""
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": labels(name)}
