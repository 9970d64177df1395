"""Which kernels run where: compiled ones on the CPU if they were built, Triton's on CUDA, else PyTorch's."""

import functools
import importlib
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from partial_fc import (
    kernels_native,
    kernels_torch,
    native_library,
    sample_kernels_native,
    sample_kernels_torch,
    tile_kernels_native,
    tile_kernels_torch,
)


def kernels_for(device: torch.device) -> ModuleType:
    """The module whose functions work on tensors of ``device``."""
    if device.type == "cpu":
        return kernels_native if native_library.available() else kernels_torch
    return _triton_kernels() if device.type == "cuda" and torch.version.cuda is not None else kernels_torch


@functools.cache
def _triton_kernels() -> ModuleType:
    """It comes with PyTorch for CUDA; without it the slower ones do."""
    found = importlib.util.find_spec("triton") is not None
    return importlib.import_module("partial_fc.kernels_triton") if found else kernels_torch


def tile_kernels_for(table: Tensor, *tensors: Tensor) -> ModuleType:
    """The module whose functions work on tiles of these tensors; the compiled ones walk over plain float32 memory, the
    table may be bfloat16.
    """
    plain = table.dtype in (torch.float32, torch.bfloat16) and all(each.dtype == torch.float32 for each in tensors)
    plain = plain and all(each.is_contiguous() for each in (table, *tensors))
    compiled = plain and table.device.type == "cpu" and native_library.available()
    return tile_kernels_native if compiled else tile_kernels_torch


def sample_kernels_for(*tensors: Tensor) -> ModuleType:
    """The module whose functions work on a batch and a sample of unit rows: compiled ones, on plain float32 memory."""
    return sample_kernels_native if tile_kernels_for(*tensors) is tile_kernels_native else sample_kernels_torch
