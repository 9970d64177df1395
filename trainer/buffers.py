"""A network's buffers as they were before a step, in case the step is not taken."""

import torch
from torch import Tensor, nn


class BufferKeeper:
    """Running statistics take in a batch in the forward pass, before anyone knows whether the step will be taken.

    A NaN there would stay for ever: every later mean has a part of it.
    """

    def __init__(self, network: nn.Module) -> None:
        # One call per type: most are pairs of small tensors, hundreds of them.
        self._by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for buffer in network.buffers():
            buffers, kept = self._by_type.setdefault(buffer.dtype, ([], []))
            buffers.append(buffer)
            kept.append(torch.empty_like(buffer))

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the present values."""
        for buffers, kept in self._by_type.values():
            torch._foreach_copy_(kept, buffers)

    @torch.no_grad()
    def put_back(self) -> None:
        """Set the values of the last :meth:`keep`."""
        for buffers, kept in self._by_type.values():
            torch._foreach_copy_(buffers, kept)
