"""For wrappers that average: a factor for the backbone's gradient that leaves the centers' gradient alone.

Shape letters: B this rank's batch, D embedding size.
"""

import math
from typing import Any

import torch
from torch import Tensor


def scale_gradient(embeddings: Tensor, factor: float) -> Tensor:
    """The same embeddings; on the way back their gradient is multiplied by ``factor``.

        y = x,    dL/dx = factor * dL/dy

    The head's gradients are derivatives of the mean over the global batch, so the ranks' backbone gradients must be
    summed (see :class:`partial_fc.PartialFC`). Where a wrapper divides their sum by its W ranks instead, as
    DistributedDataParallel and DeepSpeed do by default, undo that here:

        loss = head(scale_gradient(embeddings, W), identities)

    Multiplying the loss would be wrong: it would multiply the centers' gradient too, which nobody averages.

    embeddings: [B, D], or any other shape; returned with the same values, shape and type. The product is taken in that
    type: pass ``embeddings.float()`` where it is half precision.
    factor: W, of the group that averages. A loss scaler (fp16) multiplies the loss by s and unscales only what its own
    optimizer owns: give it ``loss / s`` and take factor W * s, then s reaches the backbone alone.
    Raises ValueError for a factor that is not a positive, finite number.
    """
    if not 0.0 < factor < math.inf:
        raise ValueError(f"factor must be positive and finite, such as the number of averaging ranks, got {factor}")
    scaled: Tensor = _ScaleGradient.apply(embeddings, factor)  # type: ignore[no-untyped-call]
    return scaled


class _ScaleGradient(torch.autograd.Function):
    """Forward: the input. Backward: the gradient times the factor, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return embeddings.view_as(embeddings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
