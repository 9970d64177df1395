"""What the ranks of a run tell each other beside the training, through the store in which they met.

The store is a table of names and values on one machine. Every call asks it once or twice; a call whose machine is lost
may block for many minutes, so only a thread that may hang calls these.
"""

from collections.abc import Iterable

from torch._C._distributed_c10d import Store

from trainer.attendance import Beat
from trainer.failure import Failure

# The names are a contract with deploy/launch: the launcher of a node tells of workers that could not tell themselves.
FAILURE = "pfc/failure"
HEARD = "pfc/heard"
BEAT = "pfc/beat"


class Bulletin:
    """The store as one rank uses it. Raises torch's DistError when the store cannot be reached."""

    def __init__(self, store: Store, *, rank: int, world_size: int) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size

    def beat(self, beat: Beat) -> None:
        """Tell that this rank lives."""
        self._store.set(f"{BEAT}/{self._rank}", beat.to_json())

    def has_come(self, rank: int) -> bool:
        """Whether a rank has ever told."""
        return self._store.check([f"{BEAT}/{rank}"])

    def beats(self, ranks: Iterable[int]) -> dict[int, Beat]:
        """The newest beats of ranks that have come."""
        wanted = list(ranks)
        if not wanted:
            return {}
        found = self._store.multi_get([f"{BEAT}/{rank}" for rank in wanted])
        return {rank: Beat.from_json(content) for rank, content in zip(wanted, found, strict=True)}

    def failure(self) -> Failure | None:
        """What has ended the run, as far as anybody has told."""
        content = self._store.compare_set(FAILURE, "", "")
        return Failure.from_json(content) if content else None

    def tell(self, failure: Failure) -> Failure:
        """Tell all ranks; returns what was told first, which is what counts."""
        return Failure.from_json(self._store.compare_set(FAILURE, "", failure.to_json()))

    def acknowledge(self) -> None:
        """Tell that this rank knows of the failure."""
        self._store.add(HEARD, 1)

    def all_have_heard(self, failure: Failure) -> bool:
        """Whether every rank that can has acknowledged."""
        return self._store.add(HEARD, 0) >= self._world_size - failure.absent
