"""Kubernetes as a target: an Indexed Job, a JobSet, or a TrainJob of Kubeflow Trainer (deploy/kubernetes.md)."""

import argparse
from collections.abc import Iterator
from typing import Any

from deploy.submit.counted import counted
from deploy.submit.errors import SubmitError
from deploy.submit.job import Job
from deploy.submit.k8s import options as own
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.complaint import MISSING_CLIENT, RefusedError
from deploy.submit.k8s.connection import connect, located
from deploy.submit.k8s.documents import documents, to_yaml
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.ownership import why_no_pods, workload
from deploy.submit.k8s.printed import lines
from deploy.submit.k8s.refusal import refuse
from deploy.submit.k8s.removal import cancel, clear
from deploy.submit.k8s.rules import problems
from deploy.submit.k8s.schemas import schema_problems
from deploy.submit.k8s.sending import send
from deploy.submit.k8s.standing import standing
from deploy.submit.k8s.storage import claims
from deploy.submit.target import Status


class KubernetesTarget:
    """A namespace of a cluster. Fulfils :class:`deploy.submit.target.Target`; only what needs the cluster asks it."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options that this target alone has."""
        own.add_arguments(parser)

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "KubernetesTarget":
        """With these options."""
        return cls(own.from_arguments(arguments))

    def check(self, job: Job) -> None:
        """Refuse what Kubernetes cannot carry, without asking a cluster."""
        refuse(job, self._options)
        rendered = documents(job, self._options)
        for problem in (*problems(rendered), *schema_problems(rendered)):
            raise SubmitError(f"no cluster would take this: {problem}")

    def render(self, job: Job) -> str:
        """YAML documents for ``kubectl apply -f -``, or for a repository."""
        try:
            return to_yaml(documents(job, self._options))
        except ImportError:
            raise SubmitError(MISSING_CLIENT) from None

    def submit(self, job: Job) -> str:
        """All objects, or none."""
        self.check(job)
        cluster = connect(self._options)
        _require_claims(cluster, job)
        rendered = documents(job, self._options)
        send(cluster, rendered)
        nodes, ranks = counted(job.nodes, "node"), counted(job.ranks_per_node, "rank")
        return f"{rendered[-1]['kind']} {job.name} in namespace {cluster.namespace}: {nodes} of {ranks}"

    def place(self) -> dict[str, Any]:
        """Context, namespace and kubeconfig: tomorrow others may be the current ones."""
        found = located(self._options)
        return {
            "context": found.context,
            "namespace": found.namespace,
            "kubeconfig": None if found.kubeconfig is None else str(found.kubeconfig),
        }

    def clear(self, name: str) -> None:
        """Objects of a Job stay when it has ended, and another one may not have their name."""
        clear(connect(self._options), name)

    def status(self, name: str) -> Status:
        """ "unknown": there is no run of that name, or no longer: a cancelled one leaves nothing."""
        cluster = connect(self._options)
        found, unseen = workload(cluster, name)
        if found is None:
            return Status("unknown", f"no run {name} in namespace {cluster.namespace}{unseen}")
        pods = cluster.pods(name)
        return standing(found, pods, "" if pods else why_no_pods(cluster, found))

    def logs(self, name: str, *, follow: bool = False, rank: int | None = None) -> Iterator[str]:
        """Lines of the newest pods; with ``follow`` also of those that come later, until the run is over."""
        return lines(connect(self._options), name, follow=follow, rank=rank)

    def cancel(self, name: str) -> str:
        """Pods get SIGTERM, and their grace time to write a checkpoint; everything else goes when they are gone."""
        return cancel(connect(self._options), name)


def _require_claims(cluster: Cluster, job: Job) -> None:
    """Without one of them its pods would wait for ever."""
    for claim in claims(job):
        try:
            is_there = cluster.read("PersistentVolumeClaim", claim) is not None
        except RefusedError as error:
            if error.status != 403:  # who may not look for it may have it mounted all the same
                raise
            continue
        if not is_there:
            raise SubmitError(
                f"--volume {claim}: there is no PersistentVolumeClaim {claim} in namespace {cluster.namespace}: "
                "make it, or give another name"
            )


TARGET = KubernetesTarget
