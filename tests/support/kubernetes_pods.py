"""Pods of a run, as kubelets report them."""

from typing import Any

from deploy.submit.k8s.contract import INDEX_ANNOTATION, labels


def pod(
    name: str,
    node: int,
    phase: str,
    *,
    code: int | None = None,
    said: str = "",
    run: str = "faces",
    created: str = "",
    owner: str = "",
    **status: Any,
) -> dict[str, Any]:
    """created: time of the day. owner: uid of the Job with which it goes. code: of its launcher, which has ended.

    said: what it printed last.
    """
    state = {}
    if code is not None:
        state = {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "message": said}}}]}
    return {
        "metadata": {
            "name": name,
            "labels": labels(run),
            "annotations": {INDEX_ANNOTATION: str(node)},
            "creationTimestamp": f"2026-11-26T{created or f'10:00:{node:02d}'}Z",
            **({"ownerReferences": [{"uid": owner}]} if owner else {}),
        },
        "spec": {
            "containers": [{"name": "trainer", "image": "pfc:1", "env": [{"name": "PET_NPROC_PER_NODE", "value": "2"}]}]
        },
        "status": {"phase": phase, **state, **status},
    }
