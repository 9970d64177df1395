"""The collectives of one head step, for unequal batches, with a count of the bytes they move and the time they take.

A world of one needs no process group: every function is then the identity.
Shape letters: W ranks, B this rank's batch, N = sum of B over ranks, M = largest B, D embedding size.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from partial_fc.collective_use import CollectiveUse

ID_BYTES = 8


@dataclass
class Collectives:
    """Collectives over ``group`` (None: the default group if one exists, else a world of one).

    ``bytes_moved`` counts the payload this rank hands to collectives since the last ``reset_count``; ``use`` counts
    payload and seconds by operation since the head was made. ``now`` gives seconds.
    """

    group: dist.ProcessGroup | None = None
    now: Callable[[], float] = time.perf_counter
    bytes_moved: int = field(default=0, init=False)
    use: CollectiveUse = field(init=False)

    def __post_init__(self) -> None:
        self.use = CollectiveUse(self.now)

    @property
    def world_size(self) -> int:
        """Number of ranks W."""
        return dist.get_world_size(self.group) if dist.is_initialized() else 1

    @property
    def rank(self) -> int:
        """This process's rank in the group."""
        return dist.get_rank(self.group) if dist.is_initialized() else 0

    def reset_count(self) -> None:
        """Start counting bytes from zero."""
        self.bytes_moved = 0

    def batch_sizes(self, local: int, device: torch.device) -> list[int]:
        """B of every rank, in rank order: one 8-byte all-gather."""
        if self.world_size == 1:
            return [local]
        sizes = torch.empty(self.world_size, dtype=torch.int64, device=device)
        mine = torch.tensor([local], dtype=torch.int64, device=device)
        with self._counted("all_gather", mine):
            dist.all_gather_single(sizes, mine, group=self.group)
        return [int(size) for size in sizes.tolist()]

    def gather_batch(self, embeddings: Tensor, identities: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        """All ranks' embeddings and identities in rank order, by ONE all-gather.

        embeddings: [B, D] float32, identities: [B] int64 -> [N, D] float32, [N] int64.
        Both travel as bytes in one buffer of M*(4D+8) per rank, so ids keep all 64 bits.
        """
        if self.world_size == 1:
            return embeddings, identities
        width = embeddings.shape[1] * embeddings.element_size()
        longest = max(sizes)
        packed = torch.zeros(longest, width + ID_BYTES, dtype=torch.uint8, device=embeddings.device)
        local = embeddings.shape[0]
        packed[:local, :width] = _plain(embeddings).view(torch.uint8).reshape(local, width)
        packed[:local, width:] = _plain(identities).view(torch.uint8).reshape(local, ID_BYTES)
        gathered = torch.empty(self.world_size * longest, width + ID_BYTES, dtype=torch.uint8, device=packed.device)
        with self._counted("all_gather", packed):
            dist.all_gather_single(gathered, packed, group=self.group)
        keep = torch.cat([torch.arange(size, device=packed.device) + rank * longest for rank, size in enumerate(sizes)])
        gathered = gathered[keep]
        return (
            gathered[:, :width].contiguous().view(embeddings.dtype),
            gathered[:, width:].contiguous().view(torch.int64).squeeze(1),
        )

    def scatter_sum(self, values: Tensor, sizes: list[int]) -> Tensor:
        """Sum [N, D] over ranks and keep this rank's rows [B, D], by one reduce-scatter of M*D per rank."""
        if self.world_size == 1:
            return values
        longest = max(sizes)
        padded = values.new_zeros(self.world_size, longest, values.shape[1])
        for block, part in zip(padded, torch.split(values, sizes), strict=True):
            block[: part.shape[0]] = part
        mine = values.new_empty(longest, values.shape[1])
        with self._counted("reduce_scatter", mine):
            dist.reduce_scatter_single(mine, padded.flatten(0, 1), group=self.group)
        return mine[: sizes[self.rank]]

    def sum(self, values: Tensor) -> Tensor:
        """Sum a small tensor (loss parts, statistics, [N] denominators) over ranks; its size does not depend on C."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def maximum(self, values: Tensor) -> Tensor:
        """Largest value over ranks, elementwise, of a small tensor ([N] largest logits)."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.world_size == 1:
            return values
        values = values.clone()
        with self._counted("all_reduce", values):
            dist.all_reduce(values, op=operation, group=self.group)
        return values

    def _counted(self, operation: str, payload: Tensor) -> AbstractContextManager[None]:
        """Count what this rank hands over; of a reduce-scatter, what comes back."""
        nbytes = payload.numel() * payload.element_size()
        self.bytes_moved += nbytes
        return self.use.timed(operation, nbytes, on_device=payload.is_cuda)


def _plain(tensor: Tensor) -> Tensor:
    """In new memory without gaps: a lone row counts as contiguous with any stride, but has no view as bytes."""
    return tensor.clone(memory_format=torch.contiguous_format)
