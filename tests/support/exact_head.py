"""A sharded head in float64, made of plain torch, that a checkpoint takes for the product's: next to no rounding.

What a run that moves to other ranks loses on the way shows in it at 1e-8; the product's head computes in float32.
"""

from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from partial_fc import CosFace, SFace
from partial_fc.class_shard import class_shard
from partial_fc.initial_centers import initial_centers
from partial_fc.seen_classes import SeenClasses


class ExactHead:
    """SFace or CosFace over the ranks' shares of the classes; centers [R, D] float64, stepped by torch.optim.SGD."""

    def __init__(self, num_classes: int, embedding_dim: int, loss: SFace | CosFace) -> None:
        ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        self.num_classes, self.embedding_dim, self.loss = num_classes, embedding_dim, loss
        self.class_shard = class_shard(num_classes, ranks, rank)
        self.stored_centers = nn.Parameter(initial_centers(self.class_shard, embedding_dim, 0).double())
        self.rows = None
        self.steps_taken = 0
        self.seen = SeenClasses(self.class_shard, "cpu")
        self.stats = SimpleNamespace(mode="exact")
        self.control = SimpleNamespace(state=dict, load_state=lambda state: None)

    @property
    def centers(self) -> Tensor:
        return self.stored_centers

    def load_centers(self, centers: Tensor) -> None:
        assert centers.dtype == torch.float64
        self.stored_centers.data.copy_(centers)

    def __call__(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        """[B, D] of this rank -> mean loss of the global batch, differentiable."""
        found: Tensor = _Loss.apply(embeddings, self.stored_centers, identities, self)
        return found


class _Loss(torch.autograd.Function):
    """Value and both gradients at once: the coefficient of each cosine is known in closed form."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, centers: Tensor, identities: Tensor, head: ExactHead) -> Tensor:
        parts = _of_all_ranks((embeddings.detach(), identities))
        rank = dist.get_rank() if dist.is_initialized() else 0
        first = sum(len(each) for each, _ in parts[:rank])
        whole = torch.cat([each for each, _ in parts]).requires_grad_()
        classes = torch.cat([each for _, each in parts])
        rows = centers.detach().clone().requires_grad_()
        own = F.one_hot(classes, head.num_classes)[:, head.class_shard.start : head.class_shard.stop].bool()
        with torch.enable_grad():
            cosines = F.normalize(whole) @ F.normalize(rows).T
            coefficients, loss = _coefficients(head.loss, cosines.detach(), own)
            gradients = torch.autograd.grad(cosines, (whole, rows), coefficients)
        _add_up(gradients[0])
        ctx.save_for_backward(gradients[0][first : first + len(embeddings)], gradients[1])
        return loss

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, Tensor, None, None]:
        own, rows = ctx.saved_tensors
        return outer[0] * own, outer[0] * rows, None, None


def _coefficients(loss: SFace | CosFace, cosines: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """dL/dcos [N, R], and L."""
    samples = len(cosines)
    if isinstance(loss, SFace):
        angles = cosines.clamp(-1, 1).acos()
        pull = -loss.scale * torch.sigmoid(loss.slope * (angles - loss.a))
        push = loss.scale * torch.sigmoid(loss.slope * (loss.b - angles))
        found = torch.where(own, pull, push) / samples
        return found, _add_up((found * cosines).sum())
    scores = loss.scale * (cosines - loss.m3 * own)
    weights = (scores - loss.scale).exp()
    denominator = _add_up(weights.sum(1))
    chosen = _add_up((scores * own).sum(1))
    found = loss.scale * (weights / denominator[:, None] - own.double()) / samples
    return found, (denominator.log() + loss.scale - chosen).mean()


def _add_up(value: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def _of_all_ranks(value: Any) -> list[Any]:
    if not dist.is_initialized():
        return [value]
    found = [value] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
