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
    return (triton_module("kernels_triton") if device.type == "cuda" else None) or kernels_torch


@functools.cache
def triton_module(name: str) -> ModuleType | None:
    """Triton comes with PyTorch for CUDA; without it the slower ones do."""
    found = torch.version.cuda is not None and importlib.util.find_spec("triton") is not None
    return importlib.import_module(f"partial_fc.{name}") if found else None


def tile_kernels_for(table: Tensor, *tensors: Tensor) -> ModuleType:
    """The module whose functions work on tiles of these tensors; compiled ones and Triton's walk over plain float32
    memory, the table may be bfloat16.
    """
    plain = table.dtype in (torch.float32, torch.bfloat16) and all(each.dtype == torch.float32 for each in tensors)
    plain = plain and all(each.is_contiguous() for each in (table, *tensors))
    if plain and table.device.type == "cpu" and native_library.available():
        return tile_kernels_native
    in_triton = triton_module("tile_kernels_triton") if plain and table.device.type == "cuda" else None
    return in_triton or tile_kernels_torch


def sample_kernels_for(*tensors: Tensor) -> ModuleType:
    """The module whose functions work on a batch and a sample of unit rows; compiled ones and Triton's as above."""
    tile_kernels = tile_kernels_for(*tensors)
    if tile_kernels is tile_kernels_native:
        return sample_kernels_native
    return (
        None if tile_kernels is tile_kernels_torch else triton_module("sample_kernels_triton")
    ) or sample_kernels_torch
