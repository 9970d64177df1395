"""Which kernels run where: compiled ones on the CPU when they were built, PyTorch's everywhere else."""

from types import ModuleType

import torch

from partial_fc import kernels_native, kernels_torch


def kernels_for(device: torch.device) -> ModuleType:
    """The module whose functions work on tensors of ``device``."""
    return kernels_native if device.type == "cpu" and kernels_native.available() else kernels_torch
