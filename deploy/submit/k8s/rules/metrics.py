"""Ports of the exporters, and who asks them."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.naming import is_port
from deploy.submit.k8s.rules.reading import PodJob, of_kind, pod_jobs

PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Ports without a name or of one name, probes and monitors of ports that no pod has, impatient liveness probes."""
    jobs = list(pod_jobs(documents))
    for job in jobs:
        ports = [port for container in job.containers for port in container.get("ports", [])]
        names, numbers = [port.get("name", "") for port in ports], [port["containerPort"] for port in ports]
        for name in names:
            if not is_port(name):
                yield f"{job.owner}: port name {name!r}: at most 15 of a-z, 0-9 and -"
        if len(set(names)) < len(names) or len(set(numbers)) < len(numbers):
            yield f"{job.owner}: two ports of one name or number"
        if not all(0 < number <= 65535 for number in numbers):
            yield f"{job.owner}: ports {numbers}: 1 to 65535"
        for container in job.containers:
            yield from _probes(job, container)
    for monitor in of_kind(documents, "PodMonitor"):
        yield from _monitor(monitor, jobs)


def _probes(job: PodJob, container: Document) -> Iterator[str]:
    names = [port.get("name") for port in container.get("ports", [])]
    for kind in PROBES:
        if kind in container and container[kind].get("httpGet", {}).get("port") not in names:
            yield f"{job.owner}: {kind} asks a port that the container does not have"
    if "livenessProbe" in container and "startupProbe" not in container:
        yield f"{job.owner}: a liveness probe without a startup probe ends runs that are still starting"


def _monitor(monitor: Document, jobs: Sequence[PodJob]) -> Iterator[str]:
    name, spec = monitor["metadata"]["name"], monitor["spec"]
    found = [job for job in jobs if spec["selector"]["matchLabels"].items() <= job.labels.items()]
    if not found:
        yield f"PodMonitor {name}: its selector finds none of the pods"
    names = {port.get("name") for job in found for each in job.containers for port in each.get("ports", [])}
    asked = [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]]
    if found and set(asked) != names:
        yield f"PodMonitor {name}: asks {sorted(asked)}, the pods have {sorted(map(str, names))}"
    if len(set(asked)) < len(asked):
        yield f"PodMonitor {name}: asks a port twice"
