"""The batches of a benchmark, drawn before its first step.

Shape letters: R rows of one rank, B batch of one rank, N global batch, D embedding size.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from partial_fc import class_shard
from trainer.bench.geometry import Geometry
from trainer.bench.problem import Problem
from trainer.world import World


@dataclass(frozen=True)
class Batch:
    """What a backbone hands to the head. embeddings: [B, D] float32; identities: [B] int64."""

    embeddings: Tensor
    identities: Tensor

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self.embeddings.nbytes + self.identities.nbytes


def draw_batches(
    count: int, problem: Problem, rows: Tensor, geometry: Geometry, world: World, seed: int
) -> list[Batch]:
    """``count`` batches of this rank: identities uniform over all classes, whichever rank has their centers.

    rows: [R, D], this rank's centers as they start. Embeddings follow them, not their current place: reading centers
    between steps would make the head bring all of them up to date, which no training does.
    """
    shard = class_shard(problem.num_classes, world.world_size, world.rank)
    generator = torch.Generator().manual_seed(seed)  # the same on all ranks: each needs the others' identities
    mine = slice(world.rank * problem.batch, (world.rank + 1) * problem.batch)
    drawn = []
    for _ in range(count):
        identities = torch.randint(problem.num_classes, (world.world_size * problem.batch,), generator=generator)
        samples, own_rows = shard.local_rows(identities)
        own = torch.zeros(len(identities), rows.shape[1])
        own[samples] = rows[own_rows.to(rows.device)].cpu().float()
        if world.world_size > 1:
            own = own.to(world.device)
            dist.all_reduce(own)
            own = own.cpu()
        embeddings = geometry.embeddings(own, generator)[mine].clone()
        drawn.append(Batch(embeddings.to(world.device), identities[mine].to(world.device, copy=True)))
    return drawn
