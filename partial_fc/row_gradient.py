"""The gradient of the class centers, as rows and their values: what a step leaves for the optimizer.

Shape letters: R rows of the class shard, S rows that took part, D embedding size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowGradient:
    """rows: [S] int64, sorted and unique, of the class shard, or None for all R. values: [S, D], dL/d(those rows)."""

    rows: Tensor | None
    values: Tensor

    def plus(self, other: "RowGradient", total_rows: int) -> "RowGradient":
        """The sum of two micro-batches' gradients, on the union of their rows; total_rows: R. Consumes both."""
        if self.rows is None:
            return RowGradient(None, _add_rows(self.values, other))
        if other.rows is None:
            return RowGradient(None, _add_rows(other.values, self))
        if torch.equal(self.rows, other.rows):
            return RowGradient(self.rows, self.values.add_(other.values))
        union = torch.unique(torch.cat([self.rows, other.rows]))
        if len(union) == total_rows:
            return RowGradient(None, _add_rows(self.dense(total_rows), other))
        values = self.values.new_zeros(len(union), self.values.shape[1])
        for part in (self, other):
            assert part.rows is not None, "both are sampled here"
            values.index_add_(0, torch.searchsorted(union, part.rows), part.values)
        return RowGradient(union, values)

    def scale_(self, factor: Tensor) -> None:
        """Multiply by a scalar."""
        self.values.mul_(factor)

    def dense(self, total_rows: int) -> Tensor:
        """A new [R, D] tensor with zeros in the rows that took no part."""
        if self.rows is None:
            return self.values.clone()
        return self.values.new_zeros(total_rows, self.values.shape[1]).index_copy_(0, self.rows, self.values)


def _add_rows(dense: Tensor, part: RowGradient) -> Tensor:
    return dense.add_(part.values) if part.rows is None else dense.index_add_(0, part.rows, part.values)
