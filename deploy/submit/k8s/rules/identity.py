"""Names and labels."""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.naming import LONGEST, is_label, is_label_key, is_label_value, is_service
from deploy.submit.k8s.rules.reading import pod_jobs

RANDOM_ENDING = "-xxxxx"  # that a Job's controller adds to the names of pods


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Names that are none, pods' names that get too long, two objects of one name, several namespaces."""
    seen: set[tuple[str, str]] = set()
    for document in documents:
        kind, about = document["kind"], document["metadata"]
        name = about["name"]
        if not (is_service(name) if kind == "Service" else is_label(name)):
            yield f"{kind} {name}: not a name"
        if (kind, name) in seen:
            yield f"{kind} {name}: there are two"
        seen.add((kind, name))
        yield from _labels(f"{kind} {name}", about.get("labels", {}))
    for job in pod_jobs(documents):
        longest = f"{job.prefix}-{job.spec.get('completions', 1) - 1}{RANDOM_ENDING}"
        if len(longest) > LONGEST:
            yield f"{job.owner}: its pods are called {longest}, longer than {LONGEST}"
        yield from _labels(f"pods of {job.owner}", job.labels)
    namespaces = {document["metadata"].get("namespace") for document in documents}
    if len(namespaces) > 1:
        yield f"the objects lie in several namespaces: {sorted(map(str, namespaces))}"


def _labels(where: str, labels: dict[str, str]) -> Iterator[str]:
    for key, value in labels.items():
        if not is_label_key(key) or not is_label_value(value):
            yield f"{where}: {key}: {value} is not a label"
