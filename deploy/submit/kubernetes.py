"""Kubernetes as a target: an Indexed Job, a JobSet, or a TrainJob of Kubeflow Trainer (deploy/kubernetes.md)."""

import argparse
from collections.abc import Iterator

from deploy.submit.errors import SubmitError
from deploy.submit.job import Job
from deploy.submit.k8s import options as own
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.complaint import MISSING_CLIENT, RefusedError
from deploy.submit.k8s.connection import connect
from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.documents import documents, to_yaml
from deploy.submit.k8s.options import Options
from deploy.submit.k8s.printed import lines
from deploy.submit.k8s.refusal import refuse
from deploy.submit.k8s.rules import problems
from deploy.submit.k8s.schemas import schema_problems
from deploy.submit.k8s.sending import adopt, companions, send
from deploy.submit.k8s.standing import standing
from deploy.submit.target import Status

WORKLOADS = ("Job", "JobSet", "TrainJob")


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
        rendered = documents(job, self._options)
        send(cluster, rendered)
        return (
            f"{rendered[-1]['kind']} {job.name} in namespace {cluster.namespace}: {job.nodes} nodes with "
            f"{job.ranks_per_node} ranks each"
        )

    def status(self, name: str) -> Status:
        """ "unknown": there is no run of that name, or no longer: a cancelled one leaves nothing."""
        cluster = connect(self._options)
        workload, unseen = _find(cluster, name)
        if workload is None:
            return Status("unknown", f"no run {name} in namespace {cluster.namespace}{unseen}")
        return standing(workload, cluster.pods(name))

    def logs(self, name: str, *, follow: bool = False, rank: int | None = None) -> Iterator[str]:
        """Lines of the newest pods."""
        return lines(connect(self._options), name, follow=follow, rank=rank)

    def cancel(self, name: str) -> str:
        """Pods get SIGTERM, and their grace time to write a checkpoint; everything else goes when they are gone."""
        cluster = connect(self._options)
        workload, unseen = _find(cluster, name)
        rest = companions(cluster, name)
        if workload is not None:
            # Applied by hand or from a repository, they belong to nobody yet.
            for companion in rest:
                if not companion["metadata"].get("ownerReferences"):
                    adopt(cluster, companion, owner=workload)
            cluster.delete(workload["kind"], name, uid=workload["metadata"].get("uid"), propagation="Foreground")
            where = f"{workload['kind']} {name} in namespace {cluster.namespace}"
            return f"{where}: its nodes write a checkpoint and end, then everything of it is removed"
        if not rest:
            raise SubmitError(f"no run {name} in namespace {cluster.namespace}{unseen}: is it in another --namespace?")
        for companion in rest:
            cluster.delete(companion["kind"], name, uid=companion["metadata"].get("uid"))
        return f"removed what was left of {name}: {', '.join(companion['kind'] for companion in rest)}"


def _find(cluster: Cluster, name: str) -> tuple[Document | None, str]:
    """The workload, whatever its kind; and words on where one was not allowed to look."""
    unseen = []
    for kind in WORKLOADS:
        try:
            document = cluster.read(kind, name)
        except RefusedError as error:
            if error.status != 403:
                raise
            unseen.append(kind)
            continue
        if document is not None:
            return {**document, "kind": kind}, ""
    return None, f" (not allowed to look for a {' or '.join(unseen)})" if unseen else ""


TARGET = KubernetesTarget
