"""The global batch as every pass over all centers wants it.

Shape letters: N global batch, D embedding size, M own pairs (samples whose own center lives on this rank).
"""

from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def transposed(self) -> Tensor:
        """[D, N] in memory: a product with centers first takes a tenth less than with a transposed view."""
        return self.unit.T.contiguous()

    def own_in(self, start: int, count: int) -> tuple[Tensor, Tensor]:
        """The own pairs of ``count`` rows from ``start`` on, with rows counted from there."""
        ends = torch.tensor([start, start + count], device=self.own[0].device)
        first, last = torch.searchsorted(self.own[0], ends).tolist()
        return self.own[0][first:last] - start, self.own[1][first:last]


def full_batch(shard: ClassShard, unit: Tensor, inverse: Tensor, identities: Tensor) -> FullBatch:
    """Sort out whose own centers live in ``shard``; identities: [N] int64 global ids."""
    samples, rows = shard.local_rows(identities)
    order = torch.argsort(rows, stable=True)
    return FullBatch(unit, inverse, (rows[order], samples[order]))
