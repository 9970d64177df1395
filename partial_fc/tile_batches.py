"""How a step's products of tiles are taken: on tensor cores where there are such, else in the embeddings' own type."""

import torch
from torch import Tensor

from partial_fc.kernels import triton_module
from partial_fc.tiled import TileBatch
from partial_fc.workspace import Workspace

FIRST_WITH_BFLOAT16 = 8  # compute capability, of NVIDIA's tensor cores


def tile_batch(unit: Tensor, workspace: Workspace) -> TileBatch:
    """Of N unit embeddings [N, D]."""
    split = triton_module("split_batch") if unit.is_cuda and unit.dtype == torch.float32 else None
    if split is None or torch.cuda.get_device_capability(unit.device)[0] < FIRST_WITH_BFLOAT16:
        return TileBatch(unit)
    batch: TileBatch = split.SplitBatch(unit, workspace)
    return batch
