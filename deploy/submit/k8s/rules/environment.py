"""Variables of the containers, and the time they have to stop."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.naming import is_secret_key, is_subdomain, is_variable
from deploy.submit.k8s.rules.reading import PodJob, pod_jobs, value_of

SHUTDOWN = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Variables twice, of no name, of two sources or none; a launcher that is killed before it has ended its ranks."""
    for job in pod_jobs(documents):
        for container in job.containers:
            seen: set[str] = set()
            for variable in container.get("env", []):
                for problem in _of_variable(variable, seen):
                    yield f"{job.owner}: variable {variable['name']}: {problem}"
                seen.add(variable["name"])
            yield from _grace(job, container)


def _of_variable(variable: Document, seen: set[str]) -> Iterator[str]:
    if not is_variable(variable["name"]):
        yield "not a name"
    if variable["name"] in seen:
        yield "there are two"
    if ("value" in variable) == ("valueFrom" in variable):
        yield "needs either a value or a reference"
    if "value" in variable and not isinstance(variable["value"], str):
        yield "its value must be text"
    secret = variable.get("valueFrom", {}).get("secretKeyRef")
    if secret is not None and not (is_subdomain(secret.get("name", "")) and is_secret_key(secret.get("key", ""))):
        yield "not a key of a secret"


def _grace(job: PodJob, container: Document) -> Iterator[str]:
    grace, shutdown = job.pod.get("terminationGracePeriodSeconds", 30), value_of(container, SHUTDOWN)
    if shutdown is None or not 0 < int(shutdown) < grace:
        yield f"{job.owner}: {SHUTDOWN} is {shutdown}: more than 0, less than the pod's grace time of {grace} s"
