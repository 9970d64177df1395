"""What the nodes of a run have printed."""

from collections.abc import Iterator, Sequence

from deploy.submit.errors import SubmitError
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.following import Following
from deploy.submit.k8s.pods import container, index, newest, node_of, phase, waits_for


def lines(cluster: Cluster, run: str, *, follow: bool, rank: int | None) -> Iterator[str]:
    """Of the newest pod of each node; with several, each line begins with the node's number.

    rank: only the node where it runs: its ranks share one output. follow: of the pods that come later, too, until the
    run is over.
    """
    if follow:
        yield from Following(cluster, run, rank).lines()
        return
    pods = list(newest(cluster.pods(run)).values())
    if not pods:
        raise SubmitError(f"run {run} has no pods in namespace {cluster.namespace}: not started, or long gone", 1)
    if rank is not None:
        pods = [_of_rank(pods, rank)]
    printing = [pod for pod in pods if phase(pod) != "Pending"]
    if not printing:
        raise SubmitError(f"{pods[0]['metadata']['name']} has printed nothing yet: {waits_for(pods[0])}", 1)
    for pod in printing:
        prefix = f"{index(pod)}: " if len(printing) > 1 else ""
        yield from (prefix + line for line in cluster.log(pod["metadata"]["name"], container(pod)["name"]))


def _of_rank(pods: Sequence[Document], rank: int) -> Document:
    node = node_of(rank, pods[0])
    for pod in pods:
        if index(pod) == node:
            return pod
    raise SubmitError(f"rank {rank} would be on node {node}, which has no pod: there are nodes 0 to {index(pods[-1])}")
