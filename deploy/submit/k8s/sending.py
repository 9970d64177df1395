"""All objects of a run into the cluster, or none; and out of it again."""

from collections.abc import Sequence

from deploy.submit.errors import SubmitError
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.complaint import RefusedError, UnreachableError
from deploy.submit.k8s.contract import RUN_LABEL, Document

COMPANIONS = ("ConfigMap", "Service", "PodMonitor", "TrainingRuntime")


def send(cluster: Cluster, documents: Sequence[Document]) -> None:
    """Create them in order; the last one becomes the owner of the others, which then go with it.

    The workload comes last, so that its pods find all they need, and that nothing runs if anything is refused. Raises
    SubmitError, and whatever interrupts it, after having removed what it had created. An object whose creation the
    server has not confirmed is named: it may be there, and may as well be somebody else's.
    """
    created: list[Document] = []
    try:
        for document in documents:
            answer = cluster.create(document)
            created.append({**document, "metadata": {**document["metadata"], "uid": answer["metadata"].get("uid")}})
        for companion in created[:-1]:
            adopt(cluster, companion, owner=created[-1])
    except BaseException as error:
        left = _remove(cluster, created)
        if isinstance(error, UnreachableError) and len(created) < len(documents):
            left += [f"perhaps {documents[len(created)]['kind']} {documents[-1]['metadata']['name']}"]
        if left and isinstance(error, SubmitError):
            raise SubmitError(f"{error}; left behind: {', '.join(left)}", error.code) from None
        raise


def adopt(cluster: Cluster, companion: Document, *, owner: Document) -> None:
    """From now on ``companion`` is removed with ``owner``."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    change = {"metadata": {"ownerReferences": [reference]}}
    cluster.patch(companion["kind"], companion["metadata"]["name"], change)


def companions(cluster: Cluster, run: str) -> list[Document]:
    """What is there of a run beside its workload, without kinds that one may not see."""
    found = []
    for kind in COMPANIONS:
        try:
            document = cluster.read(kind, run)
        except RefusedError as error:
            if error.status != 403:
                raise
            continue
        # Something else may have the same name.
        if document is not None and document["metadata"].get("labels", {}).get(RUN_LABEL) == run:
            found.append({**document, "kind": kind})
    return found


def _remove(cluster: Cluster, created: Sequence[Document]) -> list[str]:
    """Newest first; those that could not be removed."""
    left = []
    for document in reversed(created):
        about = document["metadata"]
        try:
            cluster.delete(document["kind"], about["name"], uid=about["uid"])
        except SubmitError:
            left.append(f"{document['kind']} {about['name']}")
    return left
