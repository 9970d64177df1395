"""What the nodes of a run print."""

import queue
import threading
from collections.abc import Iterator, Sequence

from deploy.submit.errors import SubmitError
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.pods import index, newest, phase, waits_for
from deploy.submit.k8s.rules.reading import value_of


def lines(cluster: Cluster, run: str, *, follow: bool, rank: int | None) -> Iterator[str]:
    """Of the newest pod of each node; with several, each line begins with the node's number.

    rank: only the node where it runs: its ranks share one output. follow: until these pods end.
    """
    pods = list(newest(cluster.pods(run)).values())
    if not pods:
        raise SubmitError(f"run {run} has no pods in namespace {cluster.namespace}: not started, or long gone", 1)
    if rank is not None:
        pods = [_of_rank(pods, rank)]
    printing = [pod for pod in pods if phase(pod) != "Pending"]
    if not printing:
        raise SubmitError(f"{pods[0]['metadata']['name']} has printed nothing yet: {waits_for(pods[0])}", 1)
    if len(printing) == 1:
        yield from _of_pod(cluster, printing[0], follow)
    elif not follow:
        for pod in printing:
            yield from (f"{index(pod)}: {line}" for line in _of_pod(cluster, pod, follow))
    else:
        yield from _side_by_side(cluster, printing)


def _of_rank(pods: Sequence[Document], rank: int) -> Document:
    container = pods[0]["spec"]["containers"][0]
    node = rank // int(value_of(container, "PET_NPROC_PER_NODE") or 1)
    for pod in pods:
        if index(pod) == node:
            return pod
    raise SubmitError(f"rank {rank} would be on node {node}, which has no pod: there are nodes 0 to {index(pods[-1])}")


def _of_pod(cluster: Cluster, pod: Document, follow: bool) -> Iterator[str]:
    return cluster.log(pod["metadata"]["name"], pod["spec"]["containers"][0]["name"], follow=follow)


def _side_by_side(cluster: Cluster, pods: Sequence[Document]) -> Iterator[str]:
    """Lines of several pods in the order in which they come."""
    came: queue.Queue[str | SubmitError | None] = queue.Queue()

    def read(pod: Document) -> None:
        try:
            for line in _of_pod(cluster, pod, follow=True):
                came.put(f"{index(pod)}: {line}")
        except SubmitError as error:
            came.put(error)
        finally:
            came.put(None)

    for pod in pods:
        threading.Thread(target=read, args=(pod,), name="pfc-log", daemon=True).start()
    failed = None
    for _ in pods:
        while (item := came.get()) is not None:
            if isinstance(item, SubmitError):
                failed = item
            else:
                yield item
    if failed is not None:
        raise failed
