"""The yardstick: the float32 logits product of centers and batch, and nothing else.

Shape letters: R rows of one rank, N global batch, D embedding size.
"""

import torch
from torch import Tensor

MAX_OUTPUT_BYTES = 2 << 30


class BareProduct:
    """``torch.mm(centers, batch.T)`` into one output [R, N] that exists beforehand.

    Above 2 GiB of output it goes by blocks of as many centers as fill 2 GiB, into the same buffer: each center is still
    read once and the output is far larger than any cache, so it costs what the whole product costs. On a GPU, too, it
    is float32, not TensorFloat-32: PyTorch's default.
    """

    def __init__(self, centers: Tensor, global_batch: int) -> None:
        self._centers = centers
        drawn = torch.randn(global_batch, centers.shape[1], generator=torch.Generator().manual_seed(0))
        self._batch = drawn.to(centers.device)
        self._block = min(len(centers), max(1, MAX_OUTPUT_BYTES // (4 * global_batch)))
        self._output = torch.empty(self._block, global_batch, device=centers.device)

    @torch.no_grad()
    def __call__(self) -> None:
        """All logits once."""
        for block in torch.split(self._centers, self._block):
            torch.mm(block, self._batch.T, out=self._output[: len(block)])

    @property
    def nbytes(self) -> int:
        """What it holds beside the centers."""
        return self._batch.nbytes + self._output.nbytes


def output_bytes(rows: int, global_batch: int) -> int:
    """Size of its output, before there is one."""
    return min(4 * rows * global_batch, MAX_OUTPUT_BYTES)
