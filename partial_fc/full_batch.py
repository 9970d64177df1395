"""The global batch as every pass over all centers wants it.

Shape letters: N global batch, D embedding size, M own pairs (samples whose own center lives on this rank).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.class_shard import ClassShard


@dataclass(frozen=True)
class FullBatch:
    """unit: [N, D] unit embeddings; inverse: [N, 1], of their norms. own: rows of the shard and samples, both [M]
    int64, sorted by row.
    """

    unit: Tensor
    inverse: Tensor
    own: tuple[Tensor, Tensor]

    def own_in(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """The own pairs of ``count`` rows from ``start`` on, with rows counted from there."""
        return own_in_tile(self.own, start, count)


def full_batch(shard: ClassShard, unit: Tensor, inverse: Tensor, identities: Tensor) -> FullBatch:
    """Sort out whose own centers live in ``shard``; identities: [N] int64 global ids."""
    samples, rows = shard.local_rows(identities)
    order = torch.argsort(rows, stable=True)
    return FullBatch(unit, inverse, (rows[order], samples[order]))


def own_in_tile(own: tuple[Tensor, Tensor], start: int, count: int) -> tuple[Tensor, Tensor]:
    """Of own pairs (rows, samples), sorted by row, those of ``count`` rows from ``start`` on, counted from there."""
    first, last = torch.searchsorted(own[0], torch.tensor([start, start + count], device=own[0].device)).tolist()
    return own[0][first:last] - start, own[1][first:last]
