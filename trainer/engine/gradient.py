"""The norm of a gradient that every rank holds whole, and its scaling."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from trainer.agreement import largest
from trainer.world import World

STRETCH = 1 << 12
CLIP_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_ and DeepSpeed have it


def gradients_of(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Those that are there."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@torch.no_grad()
def agreed_norm(gradients: Sequence[Tensor], world: World) -> float:
    """The norm of all together, the same number on all ranks; inf where it is not finite on one.

    Summed gradients are equal on all ranks, their norms only to rounding (another number of threads adds up in
    another order), and a decision or a factor made from those would let the weights drift apart.
    """
    norm = 0.0
    if gradients and gradients[0].device.type == "cpu":
        norm = float(torch.stack([_norm(gradient) for gradient in gradients]).norm())
    elif gradients:
        norm = float(torch.stack(torch._foreach_norm(gradients)).norm())  # type: ignore[arg-type]
    return largest(world, norm if math.isfinite(norm) else math.inf)


def _norm(gradient: Tensor) -> Tensor:
    """In float64, from float32 norms of short stretches: on the CPU torch's own loses four digits over 30 million
    numbers.
    """
    # As it lies in memory, so that nothing is copied.
    order = sorted(range(gradient.dim()), key=gradient.stride, reverse=True)
    flat = gradient.permute(order).reshape(-1)
    whole = len(flat) // STRETCH * STRETCH
    stretches = flat[:whole].view(-1, STRETCH).norm(dim=1)
    norm: Tensor = torch.cat([stretches, flat[whole:].norm()[None]]).double().norm()
    return norm


@torch.no_grad()
def scale_gradients(gradients: Sequence[Tensor], factor: float) -> None:
    """Multiply in place."""
    if factor != 1.0 and gradients:
        torch._foreach_mul_(gradients, factor)  # type: ignore[call-overload]


def clip_factor(norm: float, clip_norm: float | None) -> float:
    """What brings a gradient of ``norm`` down to ``clip_norm``: 1 where it is not longer, or None asks for nothing."""
    return 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + CLIP_EPSILON))
