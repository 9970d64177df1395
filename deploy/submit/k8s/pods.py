"""What the pods of a run tell about it."""

from collections.abc import Iterable, Sequence

from deploy.submit.k8s.contract import INDEX_ANNOTATION, Document
from deploy.submit.k8s.rules.reading import value_of

NOT_STARTED = ("StartError", "ContainerCannotRun")  # by containerd and by Docker: there is no such program in it


def index(pod: Document) -> int:
    """Which node of the run it is."""
    about = pod["metadata"]
    marks = {**about.get("labels", {}), **about.get("annotations", {})}
    return int(marks.get(INDEX_ANNOTATION, 0))


def container(pod: Document) -> Document:
    """That of the launcher."""
    found: Document = pod["spec"]["containers"][0]
    return found


def node_of(rank: int, pod: Document) -> int:
    """On which node a rank is, by what any pod of the run says."""
    return rank // int(value_of(container(pod), "PET_NPROC_PER_NODE") or 1)


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


def unfit_image(pods: Sequence[Document]) -> str:
    """That an image has no pfc in it, or no Python; "" where nothing says so."""
    for pod in pods:
        for status in _statuses(pod):
            ended = status.get("state", {}).get("terminated", {})
            lines = str(ended.get("message", "")).splitlines()
            said = next((line for line in lines if "No module named" in line), None)
            if said is None and ended.get("reason") in NOT_STARTED:
                said = " ".join(lines)
            if said is not None:
                return f"image {container(pod).get('image')} cannot run pfc ({said}): build it from docker/Dockerfile"
    return ""


def _statuses(pod: Document) -> list[Document]:
    return list(pod.get("status", {}).get("containerStatuses") or [])


def _sentence(reason: Document) -> str:
    words = [reason.get("reason", ""), " ".join(str(reason.get("message", "")).split())]
    return ": ".join(word for word in words if word) or "no reason given"
