"""The restricted Pod Security Standard, and a little more."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.rules.reading import PodJob, pod_jobs

FORBIDDEN = ("hostNetwork", "hostPID", "hostIPC")


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """What a namespace that enforces ``restricted`` would refuse."""
    for job in pod_jobs(documents):
        context = job.pod.get("securityContext", {})
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{job.owner}: runs as root"
        if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{job.owner}: seccompProfile must be RuntimeDefault"
        for field in FORBIDDEN:
            if job.pod.get(field):
                yield f"{job.owner}: {field}"
        if job.pod.get("automountServiceAccountToken") is not False:
            yield f"{job.owner}: pods get a token for the API server, which they do not need"
        for container in job.containers:
            yield from _container(job, container.get("securityContext", {}))


def _container(job: PodJob, context: Document) -> Iterator[str]:
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{job.owner}: allowPrivilegeEscalation must be false"
    if context.get("privileged"):
        yield f"{job.owner}: privileged"
    if context.get("capabilities", {}).get("drop") != ["ALL"] or context.get("capabilities", {}).get("add"):
        yield f"{job.owner}: must drop ALL capabilities and add none"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{job.owner}: readOnlyRootFilesystem must be true"
    if context.get("runAsNonRoot") is False or context.get("runAsUser") == 0:
        yield f"{job.owner}: its container runs as root"
