"""Which rank owns which classes: pure arithmetic, no communication.

Shape letters: C classes, N samples.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassShard:
    """The contiguous global class ids ``[start, stop)`` whose centers one rank holds."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def local_rows(self, identities: Tensor) -> tuple[Tensor, Tensor]:
        """Samples whose center lives in this shard.

        identities: [N] int64 global class ids. Returns ``(samples, rows)``, both [M] int64: positions in
        the batch and the rows of this shard (0-based) that hold their centers.
        """
        owned = (identities >= self.start) & (identities < self.stop)
        samples = owned.nonzero().squeeze(1)
        return samples, identities[samples] - self.start


def partition(total: int, world_size: int, rank: int) -> tuple[int, int]:
    """Cut ``range(total)`` in ``world_size`` contiguous parts whose sizes differ by at most one.

    Returns ``(start, stop)`` of part ``rank``; the first ``total % world_size`` parts are the longer ones.
    Raises ValueError for a negative total or a rank outside ``[0, world_size)``.
    """
    if total < 0 or world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(f"cannot give rank {rank} of {world_size} a part of {total}: need 0 <= rank < world size")
    size, longer = divmod(total, world_size)
    start = rank * size + min(rank, longer)
    return start, start + size + (rank < longer)


def class_shard(num_classes: int, world_size: int, rank: int) -> ClassShard:
    """The class shard of ``rank`` among ``world_size`` ranks; sizes differ by at most one class."""
    return ClassShard(*partition(num_classes, world_size, rank))


def check_identities(identities: Tensor, num_classes: int) -> None:
    """Raise ValueError unless ``identities`` is a 1-d int64 tensor with all values in ``[0, num_classes)``."""
    if identities.dtype != torch.int64 or identities.dim() != 1:
        raise ValueError(
            f"identities must be [B] int64 global class ids, got {list(identities.shape)} {identities.dtype}; "
            "float labels cannot hold ids above 16,777,216"
        )
    if identities.numel():
        low, high = torch.stack(torch.aminmax(identities)).tolist()  # a GPU is asked once
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"identity {low if low < 0 else high} is outside [0, {num_classes}): "
                "give the head num_classes = largest identity + 1"
            )
