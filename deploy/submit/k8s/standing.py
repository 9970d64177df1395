"""How a run stands, from its workload and its pods."""

from collections.abc import Sequence

from deploy.submit.counted import counted
from deploy.submit.k8s.contract import BAD_INPUT, QUEUE_LABEL, STOPPED, Document
from deploy.submit.k8s.pods import exit_code, is_ready, last_words, newest, phase, unfit_image, waits_for
from deploy.submit.target import Status

DONE = ("Complete", "Completed", "SuccessCriteriaMet")
FAILED = ("Failed", "FailureTarget")


def standing(workload: Document, pods: Sequence[Document], warning: str = "") -> Status:
    """One of the states of deploy.submit.target. warning: why there are no pods."""
    latest = list(newest(pods).values())
    conditions = [each for each in workload.get("status", {}).get("conditions") or [] if each["status"] == "True"]
    held = {each["type"]: each for each in conditions}
    if workload["metadata"].get("deletionTimestamp"):
        alive = sum(phase(pod) == "Running" for pod in latest)
        return Status("cancelled", f"{alive} of {counted(nodes(workload), 'node')} still to write a checkpoint and end")
    if any(kind in held for kind in DONE):
        return Status("done", f"finished on {counted(nodes(workload), 'node')}", 0)
    for kind in FAILED:
        if kind in held:
            return _failed(held[kind], latest)
    if "Suspended" in held:
        return _suspended(workload)
    if warning and not latest:
        return Status("waiting", f"no pod can be made: {warning}")
    return _by_pods(latest, nodes(workload))


def is_over(workload: Document) -> bool:
    """Whether nothing of it will start any more; one that is being deleted may still write."""
    conditions = workload.get("status", {}).get("conditions") or []
    return any(each["status"] == "True" and each["type"] in (*DONE, *FAILED) for each in conditions)


def nodes(workload: Document) -> int:
    """Of a Job, a JobSet or a TrainJob."""
    spec = workload["spec"]
    if workload["kind"] == "TrainJob":
        return int(spec["trainer"]["numNodes"])
    if workload["kind"] == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    return int(spec["completions"])


def _failed(condition: Document, latest: Sequence[Document]) -> Status:
    said = f"{condition.get('reason', '')}: {' '.join(str(condition.get('message', '')).split())}"
    if words := unfit_image(latest):
        return Status("bad input", words, BAD_INPUT)
    detail = last_words(latest) or said
    # Only exit code 2 has a rule that fails a Job; a JobSet tells that one of its Jobs has failed, and no more.
    if condition.get("reason") == "PodFailurePolicy" or any(exit_code(pod) == BAD_INPUT for pod in latest):
        return Status("bad input", detail, BAD_INPUT)
    # The controller has told the pods to stop, and has removed them: what they returned is mostly not to be seen.
    if condition.get("reason") == "DeadlineExceeded" and all(exit_code(pod) in (None, STOPPED) for pod in latest):
        return Status("stopped", f"its time is over, its nodes were told to write a checkpoint ({said})", STOPPED)
    return Status("failed", detail, 1)


def _suspended(workload: Document) -> Status:
    queue = workload["metadata"].get("labels", {}).get(QUEUE_LABEL)
    if queue:
        return Status("waiting", f"in queue {queue}")
    return Status("stopped", "suspended; with spec.suspend = false it goes on from its newest checkpoint", STOPPED)


def _by_pods(latest: Sequence[Document], count: int) -> Status:
    running = [pod for pod in latest if phase(pod) == "Running"]
    if len(running) == count:
        return Status("running", f"{counted(count, 'node')}, on {sum(map(is_ready, running))} of them it takes steps")
    codes = [code for pod in latest if (code := exit_code(pod)) is not None]
    if len(codes) == count and set(codes) == {STOPPED}:
        return Status("stopped", "with a checkpoint; Kubernetes starts it again", STOPPED)
    here = f"{len(running)} of {counted(count, 'node')} up"
    pending = next((pod for pod in latest if phase(pod) == "Pending"), None)
    if pending is not None:
        return Status("waiting", f"{here}; {pending['metadata']['name']}: {waits_for(pending)}")
    if codes:
        words = unfit_image(latest) or last_words(latest)
        told = f" ({words})" if words else ""
        return Status("waiting", f"{here}; exit codes {sorted(codes)}, to be started again{told}")
    return Status("waiting", f"{here}; no pod yet for the others")
