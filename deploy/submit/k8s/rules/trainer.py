"""Kubeflow Trainer: what it sets itself, and by what it finds the pods."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.rules.reading import of_kind, pod_jobs
from deploy.submit.k8s.train_job import ANCESTOR_LABEL


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """PET_* of users, a runtime that is not there or has no node, numbers of nodes that differ."""
    runtimes = {document["metadata"]["name"]: document for document in of_kind(documents, "TrainingRuntime")}
    for runtime in runtimes.values():
        yield from _runtime(runtime)
    for job in of_kind(documents, "TrainJob"):
        spec, where = job["spec"], f"TrainJob {job['metadata']['name']}"
        yield from _variables(where, spec.get("trainer", {}).get("env", []))
        runtime = runtimes.get(spec["runtimeRef"]["name"], {})
        if not runtime or spec["runtimeRef"].get("kind") != "TrainingRuntime":
            yield f"{where}: TrainingRuntime {spec['runtimeRef']['name']} is not among the objects"
            continue
        completions = [each.spec.get("completions") for each in pod_jobs([runtime])]
        if completions != [spec["trainer"]["numNodes"]]:
            yield f"{where}: numNodes {spec['trainer']['numNodes']}, completions {completions}"
        if "resourcesPerNode" in spec["trainer"]:
            yield f"{where}: resourcesPerNode can make Trainer count other ranks than numProcPerNode"


def _runtime(runtime: Document) -> Iterator[str]:
    where = f"TrainingRuntime {runtime['metadata']['name']}"
    if "torch" not in runtime["spec"].get("mlPolicy", {}):
        yield f"{where}: without mlPolicy.torch nobody sets PET_*"
    for each in runtime["spec"]["template"]["spec"]["replicatedJobs"]:
        label = each["template"].get("metadata", {}).get("labels", {}).get(ANCESTOR_LABEL)
        containers = each["template"]["spec"]["template"]["spec"]["containers"]
        if each["name"] != "node" or label != "trainer" or "node" not in [one["name"] for one in containers]:
            yield f"{where}: Trainer looks for job and container node, and label {ANCESTOR_LABEL}: trainer"
        for container in containers:
            yield from _variables(where, container.get("env", []))


def _variables(where: str, variables: Sequence[Document]) -> Iterator[str]:
    for variable in variables:
        if variable["name"].startswith("PET_"):
            yield f"{where}: {variable['name']} is set by Kubeflow Trainer, which refuses it from others"
