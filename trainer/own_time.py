"""Seconds of a step that a rank works before it first needs the others: the time in which ranks can be compared.

Ranks that train together all need the same time for a step, because the fast ones wait inside collectives. What they
do alone, fetching a batch and running the backbone forward, tells who makes the others wait.
"""

from collections.abc import Callable

import torch
from torch import nn

from trainer.backbones.sync_batch_norm import SyncBatchNorm


class OwnTime:
    """Follows the phases of a step; ``take()`` gives the own time of the step that ended.

    From the beginning of phase "data" to that of "head", less the waits inside of synchronised normalisation. On a
    GPU the forward is timed by the device's events, since the host only queues it; there, waits in synchronised
    normalisation are contained. ``now`` gives seconds.
    """

    def __init__(self, backbone: nn.Module, device: torch.device, now: Callable[[], float]) -> None:
        self._norms = [module for module in backbone.modules() if isinstance(module, SyncBatchNorm)]
        self._now = now
        self._events = (_event(), _event()) if device.type == "cuda" else None
        self._began: float | None = None
        self._waited = 0.0
        self._own = 0.0
        self._on_device = False

    def entered(self, part: str) -> None:
        """A phase begins."""
        if part == "data" and self._began is None:
            self._began, self._waited = self._now(), self._waits()
        elif part == "forward" and self._events is not None and self._began is not None:
            self._own, self._on_device = self._now() - self._began, True
            self._events[0].record()
        elif part == "head" and self._began is not None:
            if self._events is not None:
                self._events[1].record()
            else:
                self._own = self._now() - self._began - (self._waits() - self._waited)
            self._began = None

    def take(self) -> float:
        """Seconds of the step that ended; to be called when the host has read something that came after the forward."""
        own = self._own
        if self._events is not None and self._on_device:
            own += self._events[0].elapsed_time(self._events[1]) / 1000
        self._own, self._on_device = 0.0, False
        return own

    def _waits(self) -> float:
        return sum(norm.waited_seconds for norm in self._norms)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
