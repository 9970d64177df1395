"""What the pods of a run tell about it."""

from collections.abc import Iterable, Sequence

from deploy.submit.k8s.contract import INDEX_ANNOTATION, Document


def index(pod: Document) -> int:
    """Which node of the run it is."""
    about = pod["metadata"]
    marks = {**about.get("labels", {}), **about.get("annotations", {})}
    return int(marks.get(INDEX_ANNOTATION, 0))


def newest(pods: Iterable[Document]) -> dict[int, Document]:
    """The latest pod of each node, by index: earlier ones have failed and were replaced."""
    in_order = sorted(pods, key=lambda pod: (index(pod), str(pod["metadata"].get("creationTimestamp", ""))))
    return {index(pod): pod for pod in in_order}


def phase(pod: Document) -> str:
    """Pending, Running, Succeeded, Failed, Unknown."""
    return str(pod.get("status", {}).get("phase", "Pending"))


def is_ready(pod: Document) -> bool:
    """Whether it takes steps, as far as its readiness probe knows."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def exit_code(pod: Document) -> int | None:
    """Of its launcher, once it has ended."""
    for status in _statuses(pod):
        if "terminated" in status.get("state", {}):
            return int(status["state"]["terminated"].get("exitCode", 1))
    return None


def waits_for(pod: Document) -> str:
    """Why it does not run: what the scheduler or the kubelet says."""
    for status in _statuses(pod):
        if waiting := status.get("state", {}).get("waiting"):
            return _sentence(waiting)
    for condition in pod.get("status", {}).get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _sentence(condition)
    return "not scheduled yet"


def last_words(pods: Sequence[Document]) -> str:
    """The line in which a launcher or rank says why it failed; "" where none does."""
    for pod in pods:
        for status in _statuses(pod):
            lines = status.get("state", {}).get("terminated", {}).get("message", "").splitlines()
            said = [line for line in lines if line.startswith(("pfc: error:", "pfc launch:"))]
            if said:
                return str(next((line for line in said if line.startswith("pfc: error:")), said[-1]))
    return ""


def _statuses(pod: Document) -> list[Document]:
    return list(pod.get("status", {}).get("containerStatuses") or [])


def _sentence(reason: Document) -> str:
    words = [reason.get("reason", ""), " ".join(str(reason.get("message", "")).split())]
    return ": ".join(word for word in words if word) or "no reason given"
