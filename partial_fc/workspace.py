"""Buffers that live from step to step: freed ones go back to the system, and page faults cost like arithmetic."""

import math

import torch
from torch import Tensor


class Workspace:
    """Hands out uninitialised tensors by name; the memory of a name is kept and grows to the largest wish."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffers: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A contiguous tensor of ``shape``, valid until the same name is taken again."""
        wanted = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.dtype != dtype or len(buffer) < wanted:
            self._buffers.pop(name, None)
            buffer = torch.empty(wanted, dtype=dtype, device=self.device)
            self._buffers[name] = buffer
        return buffer[:wanted].view(shape)

    @property
    def nbytes(self) -> int:
        """Memory of all names together."""
        return sum(buffer.numel() * buffer.element_size() for buffer in list(self._buffers.values()))

    def drop(self, name: str) -> None:
        """Give the memory of ``name`` back."""
        self._buffers.pop(name, None)
