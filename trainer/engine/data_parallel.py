"""The backbone, data-parallel: DistributedDataParallel whose gradients are summed, not averaged.

The head's loss is the mean over the global batch and its gradients are exact derivatives of that number (see
``partial_fc.head``). A parameter's derivative is then the sum of the ranks' contributions; this file is the one
place where that is said. With micro-batches, all but the last must run under ``no_sync``: this hook would sum already
summed gradients again.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from partial_fc import CollectiveUse
from trainer.world import World

GRADIENTS = "gradient_all_reduce"


def gradient_use() -> CollectiveUse:
    """Nothing exchanged yet."""
    return CollectiveUse(operations=[GRADIENTS])


def _sum_over_ranks(use: CollectiveUse, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]  # DDP checks it
    buffer = bucket.buffer()
    nbytes, on_device, began = buffer.numel() * buffer.element_size(), buffer.is_cuda, use.now()

    def ended(future: Any) -> Tensor:
        # Beside the backward pass, so seconds on the way, not seconds lost; a GPU's host cannot tell them.
        use.add(GRADIENTS, nbytes, 0.0 if on_device else use.now() - began)
        summed: Tensor = future.value()[0]
        return summed

    work = dist.all_reduce(buffer, async_op=True)
    future: torch.futures.Future[Tensor] = work.get_future().then(ended)
    return future


def data_parallel(
    backbone: nn.Module,
    world: World,
    *,
    image_size: int,
    settling_batch: int = 2,
    use: CollectiveUse | None = None,
) -> nn.Module:
    """Wrap ``backbone`` for this world; the module itself in a world of one. use: counts the exchange of gradients.

    Throw-away passes over ``settling_batch`` images run first: DDP reorders its gradient buckets after the first
    backward, and an all-reduce over three or more ranks rounds differently in another order, so without them a resumed
    run would not repeat its first step bit for bit. Weights, buffers, gradients and random state are left untouched.
    """
    if world.world_size == 1:
        return backbone
    wrapped = DistributedDataParallel(
        backbone,
        device_ids=[world.device] if world.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        # Rank 0's buffers are the run's, see share_buffers: sent before every forward they would only cost a wait.
        forward_sync_buffers=False,
    )
    use = use or gradient_use()
    wrapped.register_comm_hook(use, _sum_over_ranks)
    # The reordering happens at the start of the second forward.
    throw_away_passes(wrapped, world.device, image_size=image_size, batch=settling_batch, passes=2)
    use.forget()
    return wrapped


def throw_away_passes(network: nn.Module, device: torch.device, *, image_size: int, batch: int, passes: int) -> None:
    """Run ``network`` forward and backward on black images and leave no trace of it."""
    buffers = [buffer.clone() for buffer in network.buffers()]
    devices = [device] if device.type == "cuda" else []
    dtype = next(network.parameters()).dtype
    with torch.random.fork_rng(devices=devices):
        for _ in range(passes):
            images = torch.zeros(batch, 3, image_size, image_size, dtype=dtype, device=device)
            network(images).sum().backward()
            network.zero_grad()
    with torch.no_grad():
        for buffer, saved in zip(network.buffers(), buffers, strict=True):
            buffer.copy_(saved)


def share_buffers(backbone: nn.Module, world: World) -> None:
    """Give every rank rank 0's buffers (batch-norm statistics).

    Needed before all ranks evaluate together: each has seen its own local batches only.
    """
    if world.world_size == 1:
        return
    for buffer in backbone.buffers():
        dist.broadcast(buffer, 0)
