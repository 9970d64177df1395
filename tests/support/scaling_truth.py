"""A small data-parallel training and its single-process float64 truth: what the gradient-scaling tests compare.

Shape letters: N global batch of one micro-batch, C classes, D embedding size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from head_training import relative_error
from torch import Tensor, nn

from partial_fc import CenterSGD, PartialFC, SFace
from partial_fc.reference import dense_sface

CLASSES, DIM, SIZE, STEPS = 11, 8, 4, 3
MICRO_BATCH = 7  # N, the same for all micro-batches: only then is the mean of their means the mean over all samples
LEARNING_RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4
# [world size][micro-batch]: samples per rank; uneven, and differently so within one step
SIZES = {2: ([5, 2], [3, 4], [7, 0]), 3: ([1, 4, 2], [3, 0, 4], [2, 2, 3])}
# A wrong factor is off by 1/2 or more, a lost or doubled sample by about 1/21; float32 was measured to be off by 3e-6,
# and the head may add its tolerance, which slope 80 amplifies from step to step.
LIMIT = 2e-4


def network() -> nn.Sequential:
    """[B, 3, 4, 4] -> [B, D]; nothing in it sees more than one sample, so sharding cannot change it."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 16), nn.ReLU(), nn.Linear(16, DIM))


def new_head() -> PartialFC:
    return PartialFC(CLASSES, DIM, SFace(), tolerance=1e-5, seed=3, tile_classes=4)


def center_sgd(head: PartialFC) -> CenterSGD:
    return CenterSGD(head, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=DECAY)


def backbone_sgd(parameters: Any) -> torch.optim.SGD:
    return torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=DECAY)


def micro_batch(step: int, index: int) -> tuple[Tensor, Tensor]:
    """The whole world's images [N, 3, 4, 4] and identities [N]."""
    generator = torch.Generator().manual_seed(100 * step + index)
    images = torch.randn(MICRO_BATCH, 3, SIZE, SIZE, generator=generator)
    return images, torch.randint(CLASSES, (MICRO_BATCH,), generator=generator)


def my_rows(world_size: int, rank: int, index: int) -> slice:
    sizes = SIZES[world_size][index]
    assert sum(sizes) == MICRO_BATCH
    begin = sum(sizes[:rank])
    return slice(begin, begin + sizes[rank])


@dataclass
class Trace:
    """What one training leaves: per step the gradients, at the end weights and centers (on a rank: its own rows)."""

    backbone_gradients: list[Tensor] = field(default_factory=list)
    center_gradients: list[Tensor] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    weights: Tensor = field(default_factory=lambda: torch.empty(0))
    centers: Tensor = field(default_factory=lambda: torch.empty(0))


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def flat_gradients(backbone: nn.Module) -> Tensor:
    gradients = [parameter.grad for parameter in backbone.parameters()]
    assert all(gradient is not None for gradient in gradients)
    return flat(gradients)


def dense_truth(micro_batches: int) -> Trace:
    """Each step one large batch, all micro-batches of all ranks concatenated; float64, autograd, torch.optim.SGD."""
    trace, backbone = Trace(), network().double()
    centers = new_head().centers.detach().double().requires_grad_()
    optimizer = backbone_sgd([*backbone.parameters(), centers])
    for step in range(STEPS):
        parts = [micro_batch(step, index) for index in range(micro_batches)]
        images, identities = torch.cat([images for images, _ in parts]), torch.cat([ids for _, ids in parts])
        loss = dense_sface(backbone(images.double()), identities, centers, SFace())[0]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert centers.grad is not None
        trace.losses.append(loss.item())
        trace.backbone_gradients.append(flat_gradients(backbone))
        trace.center_gradients.append(centers.grad.clone())
        optimizer.step()
    trace.weights, trace.centers = flat(backbone.parameters()), centers.detach()
    return trace


def assert_is_truth(ranks: Sequence[Trace], micro_batches: int) -> None:
    """All ranks' traces together equal the dense truth."""
    truth = dense_truth(micro_batches)
    for step in range(STEPS):
        found = torch.cat([rank.center_gradients[step] for rank in ranks])
        _assert_close(f"center gradient of step {step}", found, truth.center_gradients[step])
        for rank in ranks:
            found = rank.backbone_gradients[step]
            _assert_close(f"backbone gradient of step {step}", found, truth.backbone_gradients[step])
    _assert_close("centers", torch.cat([rank.centers for rank in ranks]), truth.centers)
    for rank in ranks:
        _assert_close("weights", rank.weights, truth.weights)
        _assert_close("losses", torch.tensor(rank.losses), torch.tensor(truth.losses, dtype=torch.float64))


def _assert_close(what: str, found: Tensor, truth: Tensor) -> None:
    error = relative_error(found, truth)
    assert error < LIMIT, f"{what}: relative error {error:.2g}"
