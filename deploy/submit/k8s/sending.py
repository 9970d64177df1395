"""All objects of a run into the cluster, or none."""

import time
from collections.abc import Sequence

from deploy.submit.errors import LeftBehindError, SubmitError
from deploy.submit.interruption import undisturbed
from deploy.submit.k8s.cluster import Cluster
from deploy.submit.k8s.complaint import RefusedError, UnreachableError, exists
from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.ownership import adopt, is_of

PAUSES = (0.5, 2.0, 0.0)  # seconds after each try to take back what was sent


def send(cluster: Cluster, documents: Sequence[Document]) -> None:
    """Create them in order; the last one becomes the owner of the others, which then go with it.

    The workload comes last, so that its pods find all they need, and that nothing runs if anything is refused. Raises
    SubmitError, and whatever interrupts it, after having removed what it had created; LeftBehindError names what could
    not be removed, and the command that does it.
    """
    _refuse_existing(cluster, documents)
    created: list[Document] = []
    try:
        for document in documents:
            answer = cluster.create(document)
            created.append(_with_uid(document, answer))
        for companion in created[:-1]:
            adopt(cluster, companion, owner=created[-1])
    except BaseException as error:
        doubtful = documents[len(created)] if len(created) < len(documents) else None
        if isinstance(error, RefusedError):
            doubtful = None  # the server has said that it is not there
        with undisturbed():
            left = _take_back(cluster, created, doubtful)
        if left:
            said = str(error) if isinstance(error, SubmitError) else "interrupted"
            raise LeftBehindError(
                f"{said}; left behind: {', '.join(map(_named, left))}; once the cluster lets you: "
                f"pfc cancel {documents[-1]['metadata']['name']}, or {cluster.kubectl_delete(left)}",
                error.code if isinstance(error, SubmitError) else 1,
            ) from None
        raise


def _refuse_existing(cluster: Cluster, documents: Sequence[Document]) -> None:
    """Nothing is begun that another object of that name would stop; and what is there later, is ours."""
    for document in documents:
        name = document["metadata"]["name"]
        if cluster.read(document["kind"], name) is not None:
            raise RefusedError(exists(document["kind"], name, cluster.namespace), 409)


def _take_back(cluster: Cluster, created: Sequence[Document], doubtful: Document | None) -> list[Document]:
    """Newest first; those that are left. doubtful: may have been created, and nobody has heard of it."""
    left = [*created, *([doubtful] if doubtful else [])]
    for pause in PAUSES:
        may_pass = False
        for document in left[::-1]:
            try:
                _remove(cluster, document)
            except UnreachableError:  # nor would it answer for the others
                may_pass = True
                break
            except SubmitError as error:
                may_pass |= error.code == 1
            else:
                left.remove(document)
        if not left or not may_pass:
            break
        time.sleep(pause)
    return left


def _remove(cluster: Cluster, document: Document) -> None:
    about = document["metadata"]
    uid = about.get("uid")
    if uid is None:
        found = cluster.read(document["kind"], about["name"])
        if found is None or not is_of(found, about["name"]):
            return
        uid = found["metadata"].get("uid")
    try:
        cluster.delete(document["kind"], about["name"], uid=uid)
    except RefusedError as error:
        if error.status != 409:  # another object has its name by now
            raise


def _named(document: Document) -> str:
    perhaps = "" if "uid" in document["metadata"] else "perhaps "
    return f"{perhaps}{document['kind']} {document['metadata']['name']}"


def _with_uid(document: Document, answer: Document) -> Document:
    return {**document, "metadata": {**document["metadata"], "uid": answer["metadata"].get("uid")}}
