"""Which classes of a shard have met a sample: those that never do keep their random centers.

Shape letters: N global batch, R rows of the class shard.
"""

import torch
from torch import Tensor

from partial_fc.class_shard import ClassShard


class SeenClasses:
    """One byte per class of ``shard``; nothing is read back from the device while training goes on.

    A sample counts when the optimizer has stepped: one of a step that is passed over has left no trace.
    """

    def __init__(self, shard: ClassShard, device: torch.device | str) -> None:
        self._shard = shard
        self._waiting: list[Tensor] = []
        self._seen = torch.zeros(len(shard), dtype=torch.bool, device=device)

    @property
    def unseen(self) -> int:
        """Classes of the shard that no sample had yet."""
        return len(self._shard) - int(self._seen.sum())

    def add(self, identities: Tensor) -> None:
        """[N] int64 global ids of a batch whose gradient waits for the optimizer."""
        self._waiting.append(identities)

    def take(self) -> None:
        """The optimizer has stepped."""
        for identities in self._waiting:
            _, rows = self._shard.local_rows(identities)
            self._seen[rows] = True
        self._waiting.clear()

    def drop(self) -> None:
        """The gradient was forgotten."""
        self._waiting.clear()

    def to(self, device: torch.device | str) -> None:
        """Move to another device."""
        self._seen = self._seen.to(device)

    def state(self) -> Tensor:
        """[R] uint8, 1 for a class that was seen: by global class id, so it can be cut for any number of ranks."""
        return self._seen.to(torch.uint8)

    def load_state(self, seen: Tensor) -> None:
        """The counterpart of :meth:`state`. Raises ValueError for another number of classes."""
        if seen.shape != self._seen.shape:
            raise ValueError(f"this shard holds {len(self._shard)} classes, got {list(seen.shape)}")
        self._seen.copy_(seen != 0)
