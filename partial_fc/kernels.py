"""Which kernels run where: compiled ones on the CPU when they were built, PyTorch's everywhere else."""

from types import ModuleType

import torch
from torch import Tensor

from partial_fc import kernels_native, kernels_torch, native_library, tile_kernels_native, tile_kernels_torch


def kernels_for(device: torch.device) -> ModuleType:
    """The module whose functions work on tensors of ``device``."""
    return kernels_native if device.type == "cpu" and native_library.available() else kernels_torch


def tile_kernels_for(*tensors: Tensor) -> ModuleType:
    """The module whose functions work on tiles of these tensors; the compiled ones walk over plain float32 memory."""
    plain = all(each.dtype == torch.float32 and each.is_contiguous() for each in tensors)
    compiled = plain and tensors[0].device.type == "cpu" and native_library.available()
    return tile_kernels_native if compiled else tile_kernels_torch
