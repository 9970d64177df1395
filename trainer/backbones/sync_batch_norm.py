"""Batch normalisation over the global batch, on CPU (gloo) and CUDA (NCCL) alike.

Letters: B this rank's batch (may be 0), C channels, n = B * positions of this rank, N = sum of n over all ranks.
Torch's own ``nn.SyncBatchNorm`` refuses CPU tensors.
"""

import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

VALUES_PER_BLOCK = 4096
"""Values per channel that are summed in float32 on the CPU before float64 takes over."""


class SyncBatchNorm(_BatchNorm):
    """``nn.BatchNorm1d/2d/3d`` whose training statistics are those of the global batch.

        y = (x - mean) / sqrt(var + eps) * weight + bias,    mean, var over all N values of a channel

    Input [B, C] or [B, C, ...], output the same shape, type and memory format. Outputs, input gradients and running
    statistics are on every rank those that ``nn.BatchNorm`` has on the concatenated batch, for any split, a rank
    without samples included. The gradients of ``weight`` and ``bias`` are this rank's contributions: sum them over
    ranks, as those of any other parameter. State dict and evaluation are those of ``nn.BatchNorm``.

    One all-reduce of 2C + 1 numbers forward and one of 2C backward, both float64, so every rank must run forward
    and backward together. ``group``: None is the default group if there is one, else a world of one, which is
    plain batch norm. ``waited_seconds`` adds up how long forward passes on a CPU waited for other ranks.

    Raises ValueError, on all ranks, when the global batch has fewer than two values per channel.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.group = group
        self.waited_seconds = 0.0

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; with the global batch in training, else with the running statistics."""
        uses_batch = self.training or self.running_mean is None
        if not (uses_batch and dist.is_initialized() and dist.get_world_size(self.group) > 1):
            return super().forward(input)
        self._check_input_dim(input)
        moments = _local_moments(input)
        if torch.compiler.is_compiling():
            dist.all_reduce(moments, group=self.group)
        else:
            began = time.perf_counter()
            dist.all_reduce(moments, group=self.group)
            self.waited_seconds += time.perf_counter() - began
        count, mean, var = _mean_and_variance(moments)
        if _values_per_channel(input) < 2 and float(count) < 2:
            raise ValueError(
                "batch normalisation of fewer than two values per channel in the global batch; use larger batches"
            )
        self._follow(count, mean, var)
        statistics = _statistics_type(input)
        out: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]
            input,
            *(torch.ones_like(mean, dtype=statistics) if self.weight is None else self.weight, self.bias),
            *(mean.to(statistics), var.to(statistics), count),
            *(self.eps, self.group),
        )
        return out

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2 or input.shape[1] != self.num_features:
            raise ValueError(f"expected [B, {self.num_features}, ...], got {list(input.shape)}")

    @torch.no_grad()
    def _follow(self, count: Tensor, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards this batch's, as ``nn.BatchNorm`` does."""
        if not (self.training and self.track_running_stats) or self.running_mean is None or self.running_var is None:
            return
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            momentum = 1.0 / float(self.num_batches_tracked) if momentum is None else momentum
        assert momentum is not None, "num_batches_tracked is there wherever the running statistics are"
        unbiased = var * (count / (count - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.mul_(1 - momentum).add_(new.to(running.dtype), alpha=momentum)


class _Normalise(torch.autograd.Function):
    """The affine map with given global statistics, and the derivative through them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: Tensor,
        eps: float,
        group: dist.ProcessGroup | None,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps, ctx.group = eps, group
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """With g = dL/dy, z = (x - mean) / std and bars for means over all N values:

        dL/dx = weight / std * (g - g_bar - z * (gz)_bar)
        """
        x, weight, mean, var, count = ctx.saved_tensors
        of_weight, of_bias = _local_sums(x, grad, weight, mean, var, ctx.eps)
        grad_x = None
        if ctx.needs_input_grad[0]:
            sums = torch.cat((of_bias, of_weight))
            dist.all_reduce(sums, group=ctx.group)
            mean_grad, mean_product = (sums / count).to(mean.dtype).chunk(2)
            slope = weight.to(mean.dtype) * torch.rsqrt(var + ctx.eps)
            # - slope * (g_bar + z * (gz)_bar), then + slope * g: the first is itself a normalisation.
            grad_x = F.batch_norm(x, mean, var, -slope * mean_product, -slope * mean_grad, training=False, eps=ctx.eps)
            slope = slope.view(-1, *[1] * (x.dim() - 2))
            same_type = slope.dtype == x.dtype  # else half precision: the products in float32, rounded once
            grad_x = grad_x.addcmul_(grad, slope) if same_type else grad_x.addcmul(grad, slope).to(x.dtype)
        wanted = ctx.needs_input_grad
        grad_weight = of_weight.to(weight.dtype) if wanted[1] else None
        grad_bias = of_bias.to(weight.dtype) if wanted[2] else None
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


def _values_per_channel(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _statistics_type(x: Tensor) -> torch.dtype:
    """Of statistics of ``x``: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    """``x`` cut along the batch.

    On the CPU torch's kernels add up channels-last tensors one by one in float32, which at 100,000 values costs two
    digits. Summed in float64 from blocks it does not. CUDA kernels add up in trees and get ``x`` whole.
    """
    if x.numel() == 0:
        return ()
    if x.device.type != "cpu" or x.dtype == torch.float64:
        return (x,)
    per_image = _values_per_channel(x) // x.shape[0]
    return torch.split(x, max(1, VALUES_PER_BLOCK // per_image))


@torch.no_grad()
def _local_moments(x: Tensor) -> Tensor:
    """[2C + 1] float64: the sums over this rank's part of x, of x^2, and n.

    Squares are not summed as such but from each block's mean and its variance about it, so float32 rounding is
    relative to the variance. The float64 sums lose (mean / std)^2 * 1e-16.
    """
    channels = x.shape[1]
    moments = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
    dtype = _statistics_type(x)
    for block in _blocks(x):
        # Running statistics only choose the type of the result: with momentum 0 they stay as they are.
        unused = torch.zeros(2, channels, dtype=dtype, device=x.device)
        mean, var = torch.batch_norm_update_stats(block, unused[0], unused[1], 0.0)
        mean, var, values = mean.double(), var.double(), _values_per_channel(block)
        moments[:channels].add_(mean, alpha=values)
        moments[channels:-1].add_(var.addcmul_(mean, mean), alpha=values)
        moments[-1] += values
    return moments


def _mean_and_variance(moments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """N [], mean [C] and biased variance [C], float64."""
    count = moments[-1]
    mean, square = (moments[:-1] / count).chunk(2)
    return count, mean, (square - mean * mean).clamp_(min=0.0)


def _local_sums(
    x: Tensor, grad: Tensor, weight: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """[C] float64 each: this rank's sums of g*z and of g, the gradients of weight and bias."""
    of_weight, of_bias = torch.zeros(2, len(mean), dtype=torch.float64, device=x.device)
    scale, unsaved = weight.to(mean.dtype), mean.new_empty(0)  # on CUDA None would not do
    for block, block_grad in zip(_blocks(x), _blocks(grad), strict=True):
        _, block_weight, block_bias = torch.ops.aten.native_batch_norm_backward(
            block_grad, block, scale, mean, var, unsaved, unsaved, False, eps, [False, True, True]
        )
        of_weight += block_weight
        of_bias += block_bias
    return of_weight, of_bias
