"""How the nodes find the first one."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import INDEX_ANNOTATION, Document
from deploy.submit.k8s.rules.reading import PodJob, of_kind, pod_jobs, value_of


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """A Service that selects no pod or hides those that are not ready; an address that no pod has."""
    services = {document["metadata"]["name"]: document["spec"] for document in of_kind(documents, "Service")}
    jobs = list(pod_jobs(documents))
    for name, service in services.items():
        if service.get("clusterIP") != "None":
            yield f"Service {name}: clusterIP must be None, else pods have no names of their own"
        if service.get("publishNotReadyAddresses") is not True:
            yield f"Service {name}: publishNotReadyAddresses must be true: nobody is ready before all have met"
        if not any(service.get("selector", {}).items() <= job.labels.items() for job in jobs):
            yield f"Service {name}: its selector finds none of the pods"
        if all(job.pod.get("subdomain") != name for job in jobs):
            yield f"Service {name}: no pod has it as its subdomain"
    networks = _networks(documents)
    for job in jobs:
        subdomain = networks.get(job.owner, job.pod.get("subdomain"))
        if job.owner not in networks and subdomain not in services:
            yield f"{job.owner}: subdomain {subdomain} is not a Service of the run"
        for container in job.containers:
            yield from _place(job, container, subdomain)


def _networks(documents: Sequence[Document]) -> dict[str, str]:
    """Subdomain by owner where a JobSet makes the Service."""
    found = {}
    for document in of_kind(documents, "JobSet", "TrainingRuntime"):
        name, spec = document["metadata"]["name"], document["spec"]
        network = (spec if document["kind"] == "JobSet" else spec["template"]["spec"]).get("network", {})
        if network.get("enableDNSHostnames", True):
            found[f"{document['kind']} {name}"] = network.get("subdomain", name)
    return found


def _place(job: PodJob, container: Document, subdomain: str | None) -> Iterator[str]:
    address = value_of(container, "PET_MASTER_ADDR")
    if address is None:
        return  # Kubeflow Trainer sets all of them
    if address != f"{job.prefix}-0.{subdomain}":
        yield f"{job.owner}: PET_MASTER_ADDR {address}: the first pod is {job.prefix}-0.{subdomain}"
    if value_of(container, "PET_NNODES") != str(job.spec.get("completions")):
        yield f"{job.owner}: PET_NNODES is not the number of completions"
    fields = [
        each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        for each in container["env"]
        if each["name"] == "PET_NODE_RANK"
    ]
    if fields != [f"metadata.annotations['{INDEX_ANNOTATION}']"]:
        yield f"{job.owner}: PET_NODE_RANK is not the pod's completion index"
