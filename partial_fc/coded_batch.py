"""A batch of unit embeddings as int8, for the screening product.

Shape letters: N global batch, D embedding size, W code width (D rounded up to 8), M the batch padded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.kernels_torch import LARGEST_CODE, ROUNDING_SLACK

BATCH_ALIGNMENT = 16  # int8 products on GPUs want it


@dataclass(frozen=True)
class CodedBatch:
    """unit embedding = scale * code + residual. codes: [W, M] int8; scales, residual norms: [M]."""

    codes: Tensor
    scales: Tensor
    residuals: Tensor

    @classmethod
    def of(cls, unit: Tensor, code_width: int) -> "CodedBatch":
        """Code unit embeddings [N, D]; a zero row gives codes 0."""
        batch, dim = unit.shape
        padded = -(-batch // BATCH_ALIGNMENT) * BATCH_ALIGNMENT
        scales = unit.new_zeros(padded)
        scales[:batch] = unit.abs().amax(dim=1) / LARGEST_CODE
        rounded = torch.where(scales[:batch, None] > 0.0, unit / scales[:batch, None], 0.0).round()
        residuals = unit.new_full((padded,), -4.0)  # padding reaches no threshold: |cos| <= 1, slack <= 1
        residuals[:batch] = (unit - scales[:batch, None] * rounded).norm(dim=1) * 1.00001 + ROUNDING_SLACK
        codes = torch.zeros(padded, code_width, dtype=torch.int8, device=unit.device)
        codes[:batch, :dim] = rounded.to(torch.int8)
        return cls(codes.T, scales, residuals)
