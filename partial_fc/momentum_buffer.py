"""Momentum of all rows, for heads whose rows do not move on their own.

Shape letters: R rows of the class shard, D embedding size.
"""

import torch
from torch import Tensor


def momentum_buffer(optimizer: torch.optim.Optimizer, centers: Tensor) -> Tensor:
    """[R, D] ``momentum_buffer`` in the optimizer's state of ``centers``: where they are, float32 of bfloat16 ones.

    Zeros to begin with: the first update leaves g + weight_decay * w, as that of torch.optim.SGD does.
    """
    state = optimizer.state[centers]
    if state.get("momentum_buffer") is None:
        dtype = torch.float32 if centers.dtype == torch.bfloat16 else centers.dtype
        zeros = torch.zeros_like(centers, dtype=dtype, requires_grad=False)
        state["momentum_buffer"] = zeros.pin_memory() if centers.is_pinned() else zeros
    buffer: Tensor = state["momentum_buffer"]
    return buffer
