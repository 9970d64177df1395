"""Each way to scale the backbone's gradient, under DDP, against one process that sees the whole batch.

Two ways are right, and both leave the centers' gradient alone: a hook that sums (trainer.engine), or DDP's own average
with ``scale_gradient(embeddings, world_size)``. W is the world size throughout.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from gang import run_gang
from scaling_truth import (
    SIZE,
    STEPS,
    Trace,
    assert_is_truth,
    backbone_sgd,
    center_sgd,
    flat,
    flat_gradients,
    micro_batch,
    my_rows,
    network,
    new_head,
)
from torch.nn.parallel import DistributedDataParallel

from partial_fc import scale_gradient
from trainer.engine import data_parallel
from trainer.world import World

pytestmark = pytest.mark.distributed

LOSS_SCALE = 1024.0
Gang = Callable[[int], list[dict[str, Any]]]


@dataclass(frozen=True)
class Case:
    averaging: bool  # DDP as it comes, with scale_gradient; otherwise trainer.engine's summing hook
    micro_batches: int = 1
    loss_scaled: bool = False  # a GradScaler scales the backbone's gradient and unscales it, as with fp16


CASES = [
    Case(averaging, micro_batches, loss_scaled)
    for averaging in (True, False)
    for micro_batches, loss_scaled in ((1, False), (3, False), (1, True), (3, True))
]


def wrapped(case: Case, world: World) -> DistributedDataParallel:
    backbone = network()
    module = DistributedDataParallel(backbone) if case.averaging else data_parallel(backbone, world, image_size=SIZE)
    assert isinstance(module, DistributedDataParallel)
    return module


def train(case: Case, world: World) -> Trace:
    """What a user writes; gradients are recorded as the optimizers see them."""
    trace, backbone, head = Trace(), wrapped(case, world), new_head()
    optimizer, center_optimizer = backbone_sgd(backbone.parameters()), center_sgd(head)
    scaler = torch.amp.GradScaler("cpu", init_scale=LOSS_SCALE, enabled=case.loss_scaled)
    factor = (world.world_size if case.averaging else 1) * scaler.get_scale()
    for step in range(STEPS):
        loss_sum = 0.0
        for index in range(case.micro_batches):
            images, identities = micro_batch(step, index)
            mine = my_rows(world.world_size, world.rank, index)
            last = index == case.micro_batches - 1
            # Averaging equal gradients again would do no harm; summing them again would.
            with nullcontext() if last else backbone.no_sync():
                embeddings = backbone(images[mine])
                loss = head(scale_gradient(embeddings, factor), identities[mine]) / case.micro_batches
                scaler.scale(loss / scaler.get_scale()).backward()
            loss_sum += loss.item()
        scaler.unscale_(optimizer)
        center_gradient = head.center_gradient()
        assert center_gradient is not None
        trace.losses.append(loss_sum)
        trace.backbone_gradients.append(flat_gradients(backbone))
        trace.center_gradients.append(center_gradient)
        scaler.step(optimizer)
        scaler.update()
        center_optimizer.step()
        optimizer.zero_grad()
        center_optimizer.zero_grad()
    trace.weights, trace.centers = flat(backbone.parameters()), head.centers.detach().clone()
    return trace


def gradients_of_scaled_loss(case: Case, world: World, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Backbone and center gradients of ``scale * loss``."""
    backbone, head = wrapped(case, world), new_head()
    images, identities = micro_batch(0, 0)
    mine = my_rows(world.world_size, world.rank, 0)
    embeddings = scale_gradient(backbone(images[mine]), world.world_size if case.averaging else 1)
    (head(embeddings, identities[mine]) * scale).backward()
    center_gradient = head.center_gradient()
    assert center_gradient is not None
    return flat_gradients(backbone), center_gradient


def all_cases(rank: int, world_size: int) -> dict[str, Any]:
    world = World(rank, world_size, rank, torch.device("cpu"))
    return {
        "trained": [train(case, world) for case in CASES],
        "linear": [
            [gradients_of_scaled_loss(Case(averaging), world, scale) for scale in (1.0, LOSS_SCALE, -0.75)]
            for averaging in (True, False)
        ],
    }


@pytest.fixture(scope="module")
def gang_results(tmp_path_factory: pytest.TempPathFactory) -> Gang:
    """``gang_results(W)``: what each rank returned; W processes start once for all tests."""
    known: dict[int, list[dict[str, Any]]] = {}

    def of_world(world_size: int) -> list[dict[str, Any]]:
        if world_size not in known:
            folder: Path = tmp_path_factory.mktemp("scaling") / str(world_size)
            known[world_size] = run_gang(world_size, all_cases, folder=folder)
        return known[world_size]

    return of_world


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("world_size", [2, 3])
def test_equals_one_process(gang_results: Gang, world_size: int, case: Case) -> None:
    ranks = gang_results(world_size)
    assert_is_truth([rank["trained"][CASES.index(case)] for rank in ranks], case.micro_batches)


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_scaled_loss_scales_both_gradients(gang_results: Gang, world_size: int) -> None:
    for rank in gang_results(world_size):
        for plain, enlarged, reversed_ in rank["linear"]:
            for gradient, large, turned in zip(plain, enlarged, reversed_, strict=True):
                assert gradient.any()
                torch.testing.assert_close(large, gradient * LOSS_SCALE, rtol=1e-5, atol=1e-3)
                torch.testing.assert_close(turned, gradient * -0.75, rtol=1e-5, atol=1e-6)
