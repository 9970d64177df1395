"""What is known of every endpoint so far."""

from collections.abc import Sequence

from trainer.top.endpoints import Endpoint
from trainer.top.history import History
from trainer.top.jobs import Job, by_job
from trainer.top.poll import Answer
from trainer.top.ranks import Rank


class Board:
    """Takes in the answers of each refresh."""

    def __init__(self) -> None:
        self._histories: dict[Endpoint, History] = {}
        self._ranks: list[Rank] = []

    def update(self, answers: Sequence[Answer]) -> None:
        """Of one refresh, an endpoint each."""
        for answer in answers:
            if answer.reading is not None:
                self._histories.setdefault(answer.endpoint, History()).add(answer.reading)
        self._ranks = [
            Rank(answer.endpoint, self._histories.get(answer.endpoint), answer.problem) for answer in answers
        ]

    @property
    def jobs(self) -> list[Job]:
        """The runs that the endpoints belong to."""
        return by_job(self._ranks)

    @property
    def silent(self) -> bool:
        """Whether no endpoint answers."""
        return all(rank.problem for rank in self._ranks)

    @property
    def problems(self) -> list[str]:
        """The different reasons of those that do not."""
        return list(dict.fromkeys(rank.problem for rank in self._ranks if rank.problem))
