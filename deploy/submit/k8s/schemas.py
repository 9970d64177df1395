"""Objects against what is published of their kinds: Kubernetes' OpenAPI schemas, Kubeflow's and JobSet's models.

Both come with the extra ``test``; what is not installed says nothing. PodMonitor has no published model in Python.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from deploy.submit.k8s.contract import Document

MODELS = {
    "JobSet": "JobsetV1alpha2JobSet",
    "TrainJob": "TrainerV1alpha1TrainJob",
    "TrainingRuntime": "TrainerV1alpha1TrainingRuntime",
}
CORE = ("v1", "batch/v1")


def schema_problems(documents: Sequence[Document], version: str | None = None) -> Iterator[str]:
    """Unknown fields, missing ones and wrong types, one line each. version: of Kubernetes; None: the newest known."""
    for document in documents:
        if document["apiVersion"] in CORE:
            yield from _core_problems(document, version)
        elif document["kind"] in MODELS:
            yield from _model_problems(document)


def _core_problems(document: Document, version: str | None) -> Iterator[str]:
    try:
        import kubernetes_validate
    except ImportError:
        return
    try:
        kubernetes_validate.validate(document, version or kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        where = ".".join(str(part) for part in error.path)
        yield f"{document['kind']}: {where}: {error.message}"


def _model_problems(document: Document) -> Iterator[str]:
    try:
        from kubeflow_trainer_api import models
    except ImportError:
        return
    try:
        read = getattr(models, MODELS[document["kind"]]).from_dict(document).to_dict()
    except ValueError as error:  # pydantic's
        yield f"{document['kind']}: {' '.join(str(error).split())}"
        return
    yield from (f"{document['kind']}: {line}" for line in _differences(document, read))


def _differences(given: Any, read: Any, where: str = "") -> Iterator[str]:
    """What reading the document by its model has lost or changed: from_dict drops what it does not know."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key in given.keys() | read.keys():
            place = f"{where}.{key}".removeprefix(".")
            if key not in read:
                yield f"{place}: unknown field"
            elif key not in given:
                yield f"{place}: would be {read[key]!r}"
            else:
                yield from _differences(given[key], read[key], place)
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for number, (one, other) in enumerate(zip(given, read, strict=True)):
            yield from _differences(one, other, f"{where}.{number}")
    elif given != read:
        yield f"{where}: {given!r} is read as {read!r}"
