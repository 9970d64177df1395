"""A synchronised norm on a batch split over ranks, against ``nn.BatchNorm`` on the whole batch."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from split_training import UNEVEN
from torch import Tensor, nn

from trainer.backbones import SyncBatchNorm


@dataclass(frozen=True)
class Layer:
    """One norm over ``shape`` [N, C, ...] of values with a mean far from 0."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float64
    momentum: float | None = 0.1
    affine: bool = True
    channels_last: bool = False


LAYERS = [
    Layer((24, 7)),
    Layer((24, 5, 3, 4), channels_last=True),
    Layer((24, 5, 3, 4), momentum=None),
    Layer((24, 5, 3, 4), affine=False),
    Layer((24, 3, 2, 3, 2)),
    Layer((24, 7), dtype=torch.float32, affine=False),
    Layer((24, 5, 31, 27), dtype=torch.float32, channels_last=True),
    Layer((24, 5, 31, 27), dtype=torch.bfloat16, channels_last=True),
]
LAYER_LIMITS = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1.5e-2}


def layer_error(layer: Layer, rank: int, world_size: int, device: str = "cpu") -> float:
    """The largest relative error, against ``nn.BatchNorm`` on the whole batch in float64, of all that a norm gives."""
    generator = torch.Generator().manual_seed(5)
    channels = layer.shape[1]
    truth: nn.Module = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(layer.shape)](
        channels, momentum=layer.momentum, affine=layer.affine, dtype=torch.float64
    )
    for parameter in truth.parameters():
        nn.init.uniform_(parameter, 0.5, 2.0, generator=generator)
    ours = SyncBatchNorm(channels, momentum=layer.momentum, affine=layer.affine)
    ours.to(device, layer.dtype if layer.dtype == torch.float64 else torch.float32).load_state_dict(truth.state_dict())
    worst = 0.0
    for batch in range(3):
        start = sum(UNEVEN[world_size][: (rank + batch) % world_size])
        rows = slice(start, start + UNEVEN[world_size][(rank + batch) % world_size])
        values = torch.randn(layer.shape, generator=generator, dtype=torch.float64) * 2 + 5
        whole = values.to(layer.dtype).double().requires_grad_()
        direction = torch.randn(layer.shape, generator=generator, dtype=torch.float64).to(layer.dtype)
        x = whole.detach().to(device, layer.dtype)[rows]
        x = (x.contiguous(memory_format=torch.channels_last) if layer.channels_last else x).requires_grad_()
        truth.zero_grad()
        ours.zero_grad()
        wanted, found = truth(whole), ours(x)
        wanted.backward(direction.double())
        found.backward(direction[rows].to(device))
        assert whole.grad is not None
        assert x.grad is not None
        assert found.dtype == x.grad.dtype == layer.dtype
        pairs = [(found, wanted[rows]), (x.grad, whole.grad[rows])]
        for mine, theirs in zip(ours.parameters(), truth.parameters(), strict=True):
            assert mine.grad is not None
            dist.all_reduce(mine.grad)
            pairs.append((mine.grad, theirs.grad))
        pairs += zip(ours.buffers(), truth.buffers(), strict=True)
        worst = max(worst, *(relative(a, b) for a, b in pairs))
    mode = ours.eval(), truth.eval()
    return max(worst, relative(mode[0](x), mode[1](whole)[rows]))


def relative(found: Tensor, wanted: Tensor) -> float:
    if not wanted.numel():
        return 0.0
    return float((found.detach().cpu().double() - wanted.detach().double()).norm() / wanted.detach().double().norm())


def layer_errors_on_cuda(rank: int, world_size: int) -> list[float]:
    """Every rank on the first GPU, which gloo permits and NCCL does not."""
    return [layer_error(layer, rank, world_size, "cuda:0") for layer in LAYERS]
