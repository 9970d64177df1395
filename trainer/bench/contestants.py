"""The methods that ``pfc bench head`` compares, each as one step of training.

Shape letters: R rows of one rank, B batch of one rank, D embedding size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from partial_fc import CenterSGD, CosFace, HeadStats, PartialFC, SFace, class_shard
from trainer.bench.bare_product import BareProduct
from trainer.bench.batches import Batch
from trainer.bench.geometry import Geometry
from trainer.bench.plain_head import PlainSFaceHead
from trainer.bench.problem import ALL_ACTIVE, COSFACE_SAMPLED, PLAIN, PRODUCT, SFACE, Problem
from trainer.world import World

MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
# With centers of norm 1 and B = 256, a positive's center turns by lr * s/(2B) * sin(0.9) = 0.01 rad in the first step,
# 0.1 rad as its momentum wears off: the pace of a model in training. Smaller norms would throw centers about.
LEARNING_RATE = 0.1
# With every pair active all centers feel the full force, 25 times norm 1: at 0.1 the phase would be over after
# one step. The work of a step does not depend on the rate; this one holds the phase for hundreds of steps.
LEARNING_RATE_ALL_ACTIVE = 1e-6


@dataclass(frozen=True)
class Contestant:
    """One method, ready to train. centers: [R, D] of this rank as stored, not kept current while training.

    step: forward, backward, update and zero_grad on one batch. stats: of the last step, where the method has any.
    """

    centers: Tensor
    step: Callable[[Batch], None]
    stats: Callable[[], HeadStats | None]


def build(problem: Problem, geometry: Geometry, world: World, seed: int) -> Contestant:
    """The problem's method with its centers drawn in place: no second copy of them exists at any time."""
    shard = class_shard(problem.num_classes, world.world_size, world.rank)
    if problem.method in (PRODUCT, PLAIN):
        centers = torch.empty(len(shard), problem.embedding_dim, device=world.device)
        geometry.fill_centers(centers, shard.start)
        if problem.method == PRODUCT:
            product = BareProduct(centers, problem.batch * world.world_size, world.device)
            return Contestant(centers, lambda batch: product(), lambda: None)
        plain = PlainSFaceHead(centers, SFace())
        sgd = torch.optim.SGD(plain.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        return Contestant(centers, _training_step(plain, sgd), lambda: None)
    head = PartialFC(
        problem.num_classes,
        problem.embedding_dim,
        SFace() if problem.method in (SFACE, ALL_ACTIVE) else CosFace(),
        tolerance=problem.tolerance,
        sample_rate=0.1 if problem.method == COSFACE_SAMPLED else 1.0,
        device=world.device,
        seed=seed,
        center_dtype=problem.center_dtype,
        center_memory=problem.center_memory,
    )
    geometry.fill_head(head)
    centers = head.stored_centers.detach()
    rate = LEARNING_RATE_ALL_ACTIVE if problem.method == ALL_ACTIVE else LEARNING_RATE
    optimizer = CenterSGD(head, lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    return Contestant(centers, _training_step(head, optimizer), lambda: head.stats)


def _training_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Batch], None]:
    def step(batch: Batch) -> None:
        # A new leaf each time: a backbone's output brings no gradient from the step before.
        model(batch.embeddings.detach().requires_grad_(), batch.identities).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
