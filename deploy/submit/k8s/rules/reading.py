"""Where the pods are in the objects of a run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploy.submit.k8s.contract import Document


@dataclass(frozen=True)
class PodJob:
    """A Job's spec, wherever it stands. owner: for people. prefix: of the names of its pods."""

    owner: str
    prefix: str
    spec: Document

    @property
    def template(self) -> Document:
        """Of its pods."""
        template: Document = self.spec["template"]
        return template

    @property
    def labels(self) -> dict[str, str]:
        """Of its pods."""
        return dict(self.template.get("metadata", {}).get("labels", {}))

    @property
    def pod(self) -> Document:
        """The pods' spec."""
        spec: Document = self.template["spec"]
        return spec

    @property
    def containers(self) -> list[Document]:
        """Of a pod."""
        return list(self.pod.get("containers", []))


def pod_jobs(documents: Sequence[Document]) -> Iterator[PodJob]:
    """All Jobs that the documents describe."""
    for document in documents:
        name, spec = document["metadata"]["name"], document.get("spec", {})
        owner = f"{document['kind']} {name}"
        if document["kind"] == "Job":
            yield PodJob(owner, name, spec)
        sets = {"JobSet": spec, "TrainingRuntime": spec.get("template", {}).get("spec", {})}
        for each in sets.get(document["kind"], {}).get("replicatedJobs", []):
            yield PodJob(owner, f"{name}-{each['name']}-{each.get('replicas', 1) - 1}", each["template"]["spec"])


def of_kind(documents: Sequence[Document], *kinds: str) -> Iterator[Document]:
    """Documents of these kinds."""
    return (document for document in documents if document["kind"] in kinds)


def value_of(container: Document, variable: str) -> str | None:
    """What a container's environment says; None: nothing, or a reference."""
    found = [each.get("value") for each in container.get("env", []) if each["name"] == variable]
    return found[-1] if found else None
