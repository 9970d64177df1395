"""What must hold between the fields of a run's objects, which schemas cannot say.

The API server and controllers find most of it too, some only when pods do not start. Each rule reads the finished
documents, not what they were made from, and so holds for edited ones as well.
"""

from collections.abc import Iterator, Sequence

from deploy.submit.k8s.contract import Document
from deploy.submit.k8s.rules import (
    amounts,
    completion,
    environment,
    exit_codes,
    identity,
    meeting,
    metrics,
    scheduling,
    security,
    trainer,
    volumes,
)

RULES = (
    identity.problems,
    completion.problems,
    exit_codes.problems,
    meeting.problems,
    environment.problems,
    metrics.problems,
    volumes.problems,
    amounts.problems,
    scheduling.problems,
    security.problems,
    trainer.problems,
)


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """One line each: which object, which field, what is wrong with it."""
    for rule in RULES:
        yield from rule(documents)
