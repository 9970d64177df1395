"""What a backbone costs, found by running the real module forward and backward on the meta device.

Nothing is computed there, but every operation has its shapes: so its arithmetic, the bytes it reads and writes, and
when each tensor comes and goes are counted, operation by operation.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import conv_flop_count, flop_registry

from trainer.backbones import BackboneConfig, build_backbone
from trainer.backbones.precision import TRUNK_TYPES

IMAGES = 32  # that are run; costs are proportional to their number but for the weights
VIEWS = frozenset(
    ["view", "t", "transpose", "permute", "expand", "detach", "alias", "unsqueeze", "squeeze", "slice", "select",
     "split", "split_with_sizes", "as_strided", "_unsafe_view", "empty", "empty_like"]
)  # fmt: skip
"""Operations that move nothing."""


@dataclass(frozen=True)
class Operation:
    """flops: of the operation. nbytes: read and written. grouped: a convolution of few channels at a time."""

    flops: float
    nbytes: float
    grouped: bool


@dataclass(frozen=True)
class BackboneCost:
    """Of ``images`` images; memory in bytes, operations in their order.

    parameters, buffers: numbers and bytes. largest: numbers of the largest parameter. kept: activations alive when the
    forward pass is over. peak: most that is alive at any time of both passes beyond weights and their gradients.
    """

    images: int
    parameters: int
    buffers: int
    largest: int
    kept: int
    peak: int
    forward: tuple[Operation, ...]
    backward: tuple[Operation, ...]

    def flops(self) -> tuple[float, float]:
        """Forward and backward, of one image."""
        return (
            sum(each.flops for each in self.forward) / self.images,
            sum(each.flops for each in self.backward) / self.images,
        )

    def seconds(self, flops: float, grouped_flops: float, bandwidth: float) -> tuple[float, float]:
        """Forward and backward of one image by the roofline: each operation takes the longer one of arithmetic, at
        ``flops`` operations/s, and of its bytes, at ``bandwidth``.
        """
        return tuple(  # type: ignore[return-value]  # of the two
            sum(
                max(each.flops / (grouped_flops if each.grouped else flops), each.nbytes / bandwidth)
                for each in operations
            )
            / self.images
            for operations in (self.forward, self.backward)
        )


def backbone_cost(config: BackboneConfig, image_size: int, images: int = IMAGES) -> BackboneCost:
    """Of the network that ``config`` builds; pretrained weights are not read. Raises ConfigError as building does."""
    return _cost(config.model_copy(update={"pretrained": None}), image_size, images)


@lru_cache(maxsize=32)
def _cost(config: BackboneConfig, image_size: int, images: int) -> BackboneCost:
    dtype = TRUNK_TYPES[config.precision]
    plain = config.model_copy(update={"precision": "float32", "normalization": _local(config.normalization)})
    with torch.device("meta"):
        network = build_backbone(plain, image_size=image_size)
    parameters = sum(each.numel() for each in network.parameters())
    buffers = sum(each.nbytes for each in network.buffers())
    if dtype != torch.float32:
        _lower(network, dtype)
    batch = torch.empty(images, 3, image_size, image_size, device="meta", dtype=dtype)
    weights = [each.untyped_storage()._cdata for each in (*network.parameters(), *network.buffers())]
    with _Count(weights) as count:
        embeddings = network(batch)
        kept, forward = count.now, count.operations
        count.operations = []
        # Gradients of weights are counted by themselves.
        for each in (each for each in network.parameters() if each.requires_grad):
            each.register_post_accumulate_grad_hook(count.forget_gradient)  # type: ignore[no-untyped-call]
        embeddings.backward(torch.empty_like(embeddings))
    largest = max(each.numel() for each in network.parameters())
    return BackboneCost(images, parameters, buffers, largest, kept, count.peak, tuple(forward), tuple(count.operations))


def _local(normalization: str) -> str:
    return "batch" if normalization == "sync_batch" else normalization  # the same shapes, without other ranks


def _lower(network: nn.Module, dtype: torch.dtype) -> None:
    """As autocast makes the trunk's tensors, which there is none of on the meta device; the few float32 layers after
    the trunk are counted as if they belonged to it.
    """
    network.to(dtype)

    def cast(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(each.to(dtype) if each.is_floating_point() else each for each in inputs)

    for module in network.modules():
        if next(module.parameters(recurse=False), None) is not None and not list(module.children()):
            module.register_forward_pre_hook(cast)


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Sees every operation below autograd. weights: storages that are there before, whose views are no activations."""

    def __init__(self, weights: list[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = frozenset(weights)
        self.operations: list[Operation] = []
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        outputs = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        for each in outputs:
            self._see(each)
        if function.overloadpacket.__name__ not in VIEWS:
            flops, grouped = _arithmetic(function, args, kwargs, out)
            self.operations.append(Operation(flops, sum(each.nbytes for each in inputs + outputs), grouped))
        return out

    def forget_gradient(self, parameter: Tensor) -> None:
        """Of a parameter: it stays, and is no activation."""
        if parameter.grad is not None:
            self._gone(parameter.grad.untyped_storage()._cdata)

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._alive and key not in self._weights:
            self._alive[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._alive.pop(key, 0)


def _arithmetic(function: Any, args: Any, kwargs: Any, out: Any) -> tuple[float, bool]:
    """Multiplications and additions, and whether it is a grouped convolution."""
    name = function.overloadpacket.__name__
    if name == "convolution_backward":  # torch's own count takes grouped ones for whole ones
        gradient, inputs, weight = args[0], args[1], args[2]
        wanted = sum(args[10][:2])
        return wanted * conv_flop_count(inputs.shape, weight.shape, gradient.shape), args[9] > 1
    counter: Callable[..., int] | None = flop_registry.get(function.overloadpacket)
    flops = 0.0 if counter is None else float(counter(*args, **kwargs, out_val=out))
    return flops, name == "convolution" and args[8] > 1
