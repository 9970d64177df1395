"""Embeddings split over the ranks, and how every rank sees all of them, a block at a time.

N rows, n rows of this rank, D embedding size.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from trainer.agreement import on_first_rank
from trainer.evaluation.row_blocks import RowBlocks, row_blocks
from trainer.world import World


@dataclass(frozen=True, eq=False)
class ShardedRows:
    """[N, D] float32 on the CPU, of which ``local`` [n, D] are this rank's: 4 N D / W bytes a rank."""

    blocks: RowBlocks
    local: Tensor
    world: World

    def local_blocks(self) -> Iterator[tuple[range, Tensor]]:
        """This rank's blocks: global rows and their embeddings."""
        first = self.blocks.rows_of(self.world.rank).start
        for number in self.blocks.of_rank(self.world.rank):
            rows = self.blocks.block(number)
            yield rows, self.local[rows.start - first : rows.stop - first]

    def all_blocks(self) -> Iterator[tuple[range, Tensor]]:
        """All blocks in order, on every rank alike: each is broadcast by the rank that has it. A collective."""
        mine = self.local_blocks()
        for number in range(self.blocks.count):
            rows, owner = self.blocks.block(number), self.blocks.owner(number)
            if self.world.world_size == 1:
                yield next(mine)
                continue
            block = next(mine)[1].contiguous() if owner == self.world.rank else torch.empty(
                len(rows), self.local.shape[1]
            )  # fmt: skip
            dist.broadcast(block, owner)
            yield rows, block

    def all_groups(self, least: int) -> Iterator[tuple[range, Tensor]]:
        """``all_blocks``, small ones joined to at least ``least`` rows: thin tiles multiply slowly. A collective."""
        held: list[Tensor] = []
        start = rows = 0
        for _, block in self.all_blocks():
            held.append(block)
            rows += len(block)
            if rows >= least or start + rows == self.blocks.total:
                yield range(start, start + rows), held[0] if len(held) == 1 else torch.cat(held)
                held, start, rows = [], start + rows, 0

    def on_first_rank(self) -> Tensor | None:
        """[N, D] on rank 0, None elsewhere. A collective."""
        parts = on_first_rank(self.world, self.local)
        return None if parts is None else torch.cat(parts)

    def choose(self, rows: NDArray[np.int64]) -> "ShardedRows":
        """The rows ``rows`` [P], in this order, as rows of their own, split over the ranks. A collective."""
        blocks = row_blocks(len(rows), self.world.world_size)
        mine = blocks.rows_of(self.world.rank)
        wanted = rows[mine.start : mine.stop]
        order = np.argsort(wanted, kind="stable")
        rising = wanted[order]
        local = torch.empty(len(mine), self.local.shape[1])
        for block_rows, block in self.all_blocks():
            start, stop = np.searchsorted(rising, (block_rows.start, block_rows.stop)).tolist()
            local[torch.from_numpy(order[start:stop])] = block[torch.from_numpy(rising[start:stop] - block_rows.start)]
        return ShardedRows(blocks, local, self.world)

    def score_pairs(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Cosines [P] of the rows first [P] and second [P], on rank 0; None elsewhere. A collective.

        Each rank scores the pairs whose first row it has, while the second rows pass by. Sums are float64, row by row,
        so that no score depends on its neighbours; they are rounded to float32 in the end.
        """
        rows = self.blocks.rows_of(self.world.rank)
        mine = np.flatnonzero((first >= rows.start) & (first < rows.stop))
        mine = mine[np.argsort(second[mine], kind="stable")]
        theirs = second[mine]
        scores = np.empty(len(mine), dtype=np.float32)
        local = self.local.numpy()
        for block_rows, block in self.all_blocks():
            start, stop = np.searchsorted(theirs, (block_rows.start, block_rows.stop)).tolist()
            others = block.numpy()
            for low in range(start, stop, _PAIRS):
                part = slice(low, min(low + _PAIRS, stop))
                left = local[first[mine[part]] - rows.start].astype(np.float64)
                right = others[theirs[part] - block_rows.start].astype(np.float64)
                scores[part] = np.sum(left * right, axis=1).clip(-1.0, 1.0)
        gathered = on_first_rank(self.world, (mine, scores))
        if gathered is None:
            return None
        result = np.empty(len(first), dtype=np.float32)
        for places, values in gathered:
            result[places] = values
        return result


_PAIRS = 1 << 14  # at a time: 128 MiB of float64 rows of 512
