"""Tensors as they are at one moment, copied into host memory that is kept for the next time.

What has never been written to costs several times as much to fill as memory in use: the kernel clears each page first
(measured on 2 CPU cores: 0.4 s per GB against 0.1 s of copying). So the buffers are made and touched once, in pages as
large as the kernel gives.
"""

import mmap
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.checkpoint.parts import Part

GROWTH = 1.25  # of a tensor that is larger than its buffer: momentum of rows in motion comes and goes
FEW_BYTES = 1 << 20  # that need no pages of their own


@dataclass(frozen=True)
class Snapshot:
    """Copies of parts. wait: returns when they are complete; call it before reading, on any thread."""

    parts: dict[str, Part]
    wait: Callable[[], None]


class HostBuffers:
    """A buffer per name, as large as the largest tensor that was copied into it so far."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(buffer.numel() for buffer in self._buffers.values())

    def reserve(self, parts: Mapping[str, Part]) -> None:
        """Make and touch room for tensors of these sizes; their values are not read."""
        for name, part in parts.items():
            if not self._fits(name, part.tensor):
                self._make(name, part.tensor, part.tensor.nbytes)

    def copy(self, parts: Mapping[str, Part]) -> Snapshot:
        """Copy all of ``parts``; the former copies are overwritten.

        From a GPU the copies are queued behind the work given to it so far and before what comes next, so the host
        need not wait: whoever reads them does.
        """
        copies: dict[str, Part] = {}
        devices: set[torch.device] = set()
        for name, part in parts.items():
            tensor = part.tensor.detach()
            if not self._fits(name, tensor):
                known = name in self._buffers
                self._make(name, tensor, int(tensor.nbytes * GROWTH) if known else tensor.nbytes)
            room = self._buffers[name][: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            room.copy_(tensor, non_blocking=True)
            if tensor.is_cuda:
                devices.add(tensor.device)
            copies[name] = replace(part, tensor=room)
        events = []
        for device in devices:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
            event.record(torch.cuda.current_stream(device))
            events.append(event)

        def wait() -> None:
            for event in events:
                event.synchronize()

        return Snapshot(copies, wait)

    def _fits(self, name: str, tensor: Tensor) -> bool:
        return name in self._buffers and self._buffers[name].numel() >= tensor.nbytes

    def _make(self, name: str, tensor: Tensor, size: int) -> None:
        self._buffers.pop(name, None)
        # Pinned memory lets a GPU copy on its own; nothing else is worth locking.
        self._buffers[name] = torch.empty(size, dtype=torch.uint8, pin_memory=True) if tensor.is_cuda else _paged(size)


def _paged(size: int) -> Tensor:
    """[size] uint8 of its own pages, touched; malloc would hand them to others once they are free."""
    if size < FEW_BYTES:
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # another system than Linux, or a kernel without large pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8).zero_()
