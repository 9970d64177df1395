"""Single rows between a table in host memory and the device.

A GPU reads and writes pinned memory itself, over the bus: no list of rows goes to the host, no host thread gathers
them, and nothing waits but for what is written. Elsewhere the host gathers and copies.
Shape letters: R rows of the table, A rows asked for, D embedding size.
"""

import torch
from torch import Tensor

from partial_fc.kernels import triton_module


class HostRows:
    """table: [R, D] in host memory. device: where rows are wanted."""

    def __init__(self, table: Tensor, device: torch.device) -> None:
        self.table = table
        self._apart = device.type != table.device.type
        self._seen = device.type == "cuda" and table.is_contiguous() and table.is_pinned()
        self._pinned = table.new_empty(0, table.shape[1])

    def fetch(self, rows: Tensor, out: Tensor) -> None:
        """``rows`` [A] int64 of the table, on the device, into ``out`` [A, D] there."""
        if self._seen and (programs := triton_module("host_row_kernels_triton")) is not None:
            programs.fetch(self.table, rows, out)
        elif self._apart:
            listed = rows.to(self.table.device)
            # What was copied from there last has arrived: rows.to() waited for all the work before it.
            pinned = self._pinned_room(len(listed))
            torch.index_select(self.table, 0, listed, out=pinned)
            out.copy_(pinned, non_blocking=True)
        else:
            torch.index_select(self.table, 0, rows, out=out)

    def put(self, rows: Tensor, values: Tensor) -> None:
        """Write [A, D] ``values`` of the device to ``rows`` [A], each of them once; returns when they are there."""
        if self._seen and (programs := triton_module("host_row_kernels_triton")) is not None:
            programs.put(self.table, rows, values)
            torch.cuda.current_stream(values.device).synchronize()
        elif self._apart:
            there = self._pinned_room(len(values)).copy_(values)
            self.table.index_copy_(0, rows.to(self.table.device), there)
        else:
            self.table.index_copy_(0, rows, values)

    def _pinned_room(self, count: int) -> Tensor:
        if len(self._pinned) < count:
            self._pinned = torch.empty(count, self.table.shape[1], dtype=self.table.dtype, pin_memory=True)
        return self._pinned[:count]
