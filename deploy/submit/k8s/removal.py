"""A run out of the cluster: asked to stop, or long over."""

import time

from deploy.submit.errors import SubmitError
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.ownership import adopt, companions, workload
from deploy.submit.k8s.standing import is_over

CLEARING_SECONDS = 60.0  # for the cluster's garbage collector
POLL_SECONDS = 0.5
NO_TIME = 1  # seconds; after 0 the cluster would forget pods that may go on


def cancel(cluster: Cluster, name: str) -> str:
    """Pods get SIGTERM, and their grace time to write a checkpoint; everything else goes when they are gone.

    Of a run that was cancelled before, they are ended at once.
    """
    found, unseen = workload(cluster, name)
    rest = companions(cluster, name)
    if found is not None:
        where = f"{found['kind']} {name} in namespace {cluster.namespace}"
        if found["metadata"].get("deletionTimestamp"):
            for pod in cluster.pods(name):
                cluster.delete("Pod", pod["metadata"]["name"], uid=pod["metadata"].get("uid"), grace_seconds=NO_TIME)
            return f"{where}: its nodes are ended at once; the checkpoints that are whole stay"
        # Applied by hand or from a repository, they belong to nobody yet.
        for companion in rest:
            if not companion["metadata"].get("ownerReferences"):
                adopt(cluster, companion, owner=found)
        uid = found["metadata"].get("uid")
        if is_over(found):
            cluster.delete(found["kind"], name, uid=uid)
            return f"{where} was over; everything of it but its output is removed"
        cluster.delete(found["kind"], name, uid=uid, propagation="Foreground")
        return f"{where}: its nodes write a checkpoint and end, then everything of it is removed"
    if not rest:
        raise SubmitError(f"no run {name} in namespace {cluster.namespace}{unseen}: is it in another --namespace?")
    if unseen and any(companion["metadata"].get("ownerReferences") for companion in rest):
        raise SubmitError(f"run {name} in namespace {cluster.namespace} cannot be told to end{unseen}")
    for companion in rest:
        cluster.delete(companion["kind"], name, uid=companion["metadata"].get("uid"))
    return f"removed what was left of {name}: {', '.join(companion['kind'] for companion in rest)}"


def clear(cluster: Cluster, name: str) -> None:
    """Remove a run that is over. Raises SubmitError where one of that name is not, or does not go."""
    found, _ = workload(cluster, name)
    if found is None:
        return
    if found["metadata"].get("deletionTimestamp"):
        raise SubmitError(f"{name} was cancelled, and its nodes still write: wait until pfc status {name} is unknown")
    if not is_over(found):
        raise SubmitError(f"{name} is not over: pfc cancel {name}, or choose another name")
    cancel(cluster, name)
    end = time.monotonic() + CLEARING_SECONDS
    while workload(cluster, name)[0] is not None or companions(cluster, name) or cluster.pods(name):
        if time.monotonic() > end:
            raise SubmitError(f"what is left of the last run {name} does not go; try again in a minute", 1)
        time.sleep(POLL_SECONDS)
