"""Rows of embeddings cut in blocks, and blocks dealt to ranks: pure arithmetic, no communication.

Blocks depend on the number of rows alone, and a rank gets whole ones. Images are embedded in batches that lie within
a block, and products are tiles of two blocks, so every number is computed in the same company at any world size.

N rows, n blocks, W ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_BLOCK = 4096  # rows: 8 MiB of 512 floats
_BLOCKS = 64  # at least so many where there are rows enough, so that ranks have something to share


@dataclass(frozen=True)
class RowBlocks:
    """``total`` rows in blocks of ``size``, the last one shorter; rank r has the blocks [bounds[r], bounds[r + 1])."""

    total: int
    size: int
    bounds: tuple[int, ...]

    @property
    def count(self) -> int:
        """Blocks."""
        return -(-self.total // self.size)

    def block(self, number: int) -> range:
        """Rows of a block."""
        return range(number * self.size, min((number + 1) * self.size, self.total))

    def of_rank(self, rank: int) -> range:
        """Blocks of a rank."""
        return range(self.bounds[rank], self.bounds[rank + 1])

    def rows_of(self, rank: int) -> range:
        """Rows of a rank: neighbours."""
        start, stop = (min(self.bounds[place] * self.size, self.total) for place in (rank, rank + 1))
        return range(start, stop)

    def owner(self, number: int) -> int:
        """The rank that has a block."""
        return next(rank for rank in range(len(self.bounds) - 1) if number in self.of_rank(rank))


def row_blocks(total: int, world_size: int, *, multiple: int = 1, images: NDArray[np.int64] | None = None) -> RowBlocks:
    """Blocks of ``total`` rows for so many ranks; block sizes are multiples of ``multiple``, such as the batch size.

    images: [N] images of each row, for ranks to get equal shares of them; None: one each.
    """
    wanted = min(LARGEST_BLOCK, max(1, -(-total // _BLOCKS)))
    size = max(1, -(-wanted // multiple)) * multiple
    each = np.ones(total, dtype=np.int64) if images is None else images
    costs = np.add.reduceat(each, np.arange(0, total, size)).tolist() if total else []
    return RowBlocks(total, size, equal_shares(costs, world_size))


def equal_shares(costs: Sequence[int], world_size: int) -> tuple[int, ...]:
    """[W + 1] bounds of contiguous parts whose costs are as equal as whole blocks allow, within one block."""
    reached = np.append(0, np.cumsum(costs))
    whole = int(reached[-1])
    bounds = [int(np.searchsorted(reached, whole * rank / world_size)) for rank in range(world_size)]
    return (*bounds, len(costs))
