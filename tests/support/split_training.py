"""A backbone trained on batches that are split over ranks, and what must not depend on the split."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from partial_fc import CenterSGD, CosFace, PartialFC
from trainer.backbones import BackboneConfig, build_backbone, convert_normalization
from trainer.backbones.channel_prelu import ChannelPReLU
from trainer.backbones.iresnet import IResNet
from trainer.engine import data_parallel
from trainer.world import World

CLASSES, DIM, BATCH = 13, 16, 24
UNEVEN = {1: (24,), 2: (9, 15), 3: (13, 0, 11), 4: (7, 3, 0, 14)}
EQUAL = {1: (24,), 2: (12, 12)}


@dataclass(frozen=True)
class Training:
    """``steps`` of SGD of ``backbone``; the ranks' shares of the batch rotate, so each is empty in turn."""

    backbone: BackboneConfig
    steps: int
    dtype: torch.dtype = torch.float32
    image_size: int = 32
    lr: float = 0.01
    splits: dict[int, tuple[int, ...]] | None = None
    small: bool = False  # an IResNet smaller than any in the registry

    def build(self) -> nn.Module:
        torch.manual_seed(3)
        if not self.small:
            return build_backbone(self.backbone, image_size=self.image_size).to(self.dtype)
        small = IResNet(
            (1, 1, 1, 1),
            DIM,
            channels=(8, 8, 16, 32),
            image_size=self.image_size,
            activation_checkpointing=self.backbone.activation_checkpointing,
        )
        convert_normalization(small, self.backbone.normalization)
        if self.dtype == torch.float32:
            # A rounding error that turns one activation's sign changes its slope from 0.25 to 1, and 20 steps make up
            # to 1e-3 of it, on one rank too. Not so where the two slopes are nearly the same.
            for layer in small.modules():
                if isinstance(layer, ChannelPReLU):
                    nn.init.constant_(layer.weight, 0.9)
        return small.to(self.dtype)


@dataclass(frozen=True)
class Trained:
    """Global embeddings and summed gradients of the first step; weights, running statistics
    and centers after the last; losses."""

    embeddings: Tensor
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]
    statistics: dict[str, Tensor]
    centers: Tensor
    losses: list[float]


def run(training: Training, rank: int, world_size: int) -> Trained:
    """Train as rank ``rank``: with PartialFC in float32, with the same loss by plain torch in float64."""
    backbone = training.build()
    network = data_parallel(
        backbone, World(rank, world_size, rank, torch.device("cpu")), image_size=training.image_size
    )
    optimizer = torch.optim.SGD(backbone.parameters(), lr=training.lr, momentum=0.9, weight_decay=5e-4)
    head = Head(training, world_size)
    first: tuple[Tensor, dict[str, Tensor]] | None = None
    losses = []
    for step in range(training.steps):
        rows = share((training.splits or UNEVEN)[world_size], rank, step)
        images, identities = batch(training, step)
        embeddings = network(images[rows])
        loss = head.loss(embeddings, identities[rows])
        loss.backward()
        if first is None:
            gradients = {name: p.grad.clone() for name, p in backbone.named_parameters() if p.grad is not None}
            first = gathered(embeddings.detach(), rows), gradients
        losses.append(head.total(loss.detach()))
        optimizer.step()
        head.step()
        optimizer.zero_grad()
    assert first is not None
    return Trained(
        *first,
        weights={name: parameter.detach().clone() for name, parameter in backbone.named_parameters()},
        statistics={name: buffer.double() for name, buffer in backbone.named_buffers()},
        centers=head.all_centers(),
        losses=losses,
    )


def batch(training: Training, step: int) -> tuple[Tensor, Tensor]:
    """The global batch: images [N, 3, S, S] of a coarse pattern per class and noise, identities [N]."""
    generator = torch.Generator().manual_seed(100 + step)
    identities = torch.randint(CLASSES, (BATCH,), generator=generator)
    patterns = torch.randn(CLASSES, 3, 4, 4, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    images = F.interpolate(patterns[identities], size=training.image_size, mode="bilinear")
    noise = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    return (images + 0.3 * noise).clamp(-2, 2).div(2).to(training.dtype), identities


def share(split: tuple[int, ...], rank: int, step: int) -> slice:
    """This rank's rows of the global batch; the split turns by one rank each step."""
    turned = [split[(i + step) % len(split)] for i in range(len(split))]
    return slice(sum(turned[:rank]), sum(turned[: rank + 1]))


def gathered(embeddings: Tensor, rows: slice) -> Tensor:
    """[B, D] of every rank -> [N, D]."""
    everything = torch.zeros(BATCH, embeddings.shape[1], dtype=embeddings.dtype)
    everything[rows] = embeddings
    if dist.is_initialized():
        dist.all_reduce(everything)
    return everything


class Head:
    """CosFace over ``CLASSES`` centers: PartialFC, or in float64 replicated centers and plain torch."""

    def __init__(self, training: Training, world_size: int) -> None:
        self._exact = training.dtype == torch.float64
        self._world_size = world_size
        if self._exact:
            generator = torch.Generator().manual_seed(7)
            self._centers = nn.Parameter(torch.randn(CLASSES, DIM, dtype=torch.float64, generator=generator))
            self._optimizer: torch.optim.Optimizer = torch.optim.SGD([self._centers], lr=training.lr, momentum=0.9)
        else:
            self._head = PartialFC(CLASSES, DIM, CosFace(scale=16.0, margin=0.2))
            self._optimizer = CenterSGD(self._head, lr=training.lr, momentum=0.9, weight_decay=5e-4)

    def loss(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        """PartialFC: the global mean. Plain: this rank's share of it."""
        if not self._exact:
            loss: Tensor = self._head(embeddings, identities)
            return loss
        cosines = F.linear(F.normalize(embeddings), F.normalize(self._centers))
        logits = 16.0 * (cosines - 0.2 * F.one_hot(identities, CLASSES))
        return F.cross_entropy(logits, identities, reduction="sum") / BATCH

    def total(self, loss: Tensor) -> float:
        """The global mean."""
        if self._exact and self._world_size > 1:
            dist.all_reduce(loss)
        return float(loss)

    def step(self) -> None:
        if self._exact and self._world_size > 1:
            dist.all_reduce(self._centers.grad)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def all_centers(self) -> Tensor:
        """[CLASSES, D]."""
        if self._exact:
            return self._centers.detach().clone()
        everything = torch.zeros(CLASSES, DIM)
        shard = self._head.class_shard
        everything[shard.start : shard.stop] = self._head.centers.detach()
        if self._world_size > 1:
            dist.all_reduce(everything)
        return everything


def difference(found: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """Norm of the difference of all tensors together, relative to ``truth``."""
    assert found.keys() == truth.keys()
    apart = sum(float((found[name].detach().double() - truth[name].detach().double()).square().sum()) for name in truth)
    size = sum(float(tensor.detach().double().square().sum()) for tensor in truth.values())
    return (apart / size) ** 0.5


def many(rank: int, world_size: int, trainings: dict[str, Training]) -> dict[str, Any]:
    """Run several trainings in one gang."""
    return {name: run(training, rank, world_size) for name, training in trainings.items()}
