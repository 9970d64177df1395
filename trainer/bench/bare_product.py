"""The yardstick: the float32 logits product of centers and batch, and nothing else.

Shape letters: R rows of one rank, N global batch, D embedding size.
"""

import torch
from torch import Tensor

MAX_OUTPUT_BYTES = 2 << 30
STAND_IN_ROWS = 1 << 18  # float32 centers that stand for all where those are stored in less: far more than any cache


class BareProduct:
    """``torch.mm(centers, batch.T)`` into one output [R, N] that exists beforehand.

    Above 2 GiB of output it goes by blocks of as many centers as fill 2 GiB, into the same buffer: each center is still
    read once and the output is far larger than any cache, so it costs what the whole product costs. On a GPU, too, it
    is float32, not TensorFloat-32: PyTorch's default.

    Where centers are not float32 on ``device`` (None: where they are), as many random ones as ``STAND_IN_ROWS`` take
    part again and again, until each center had its product: no cache holds them, so they cost what all would.
    """

    def __init__(self, centers: Tensor, global_batch: int, device: torch.device | None = None) -> None:
        device = centers.device if device is None else device
        self._rows = len(centers)
        self._stand_in = 0
        if centers.dtype != torch.float32 or centers.device.type != device.type:
            generator = torch.Generator().manual_seed(1)
            stand_in = torch.randn(min(self._rows, STAND_IN_ROWS), centers.shape[1], generator=generator)
            self._stand_in = stand_in.nbytes
            centers = stand_in.to(device)
        self._centers = centers
        drawn = torch.randn(global_batch, centers.shape[1], generator=torch.Generator().manual_seed(0))
        self._batch = drawn.to(centers.device)
        self._block = min(len(centers), max(1, MAX_OUTPUT_BYTES // (4 * global_batch)))
        self._output = torch.empty(self._block, global_batch, device=centers.device)

    @torch.no_grad()
    def __call__(self) -> None:
        """All logits once."""
        for begin in range(0, self._rows, len(self._centers)):
            for block in torch.split(self._centers[: self._rows - begin], self._block):
                torch.mm(block, self._batch.T, out=self._output[: len(block)])

    @property
    def nbytes(self) -> int:
        """What it holds beside the centers."""
        return self._stand_in + self._batch.nbytes + self._output.nbytes


def output_bytes(rows: int, global_batch: int) -> int:
    """Size of its output, before there is one."""
    return min(4 * rows * global_batch, MAX_OUTPUT_BYTES)
