"""A batch of unit embeddings as int8, for the screening product.

Shape letters: N global batch, D embedding size, W code width (D rounded up to 8), M the batch padded.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.kernels import sample_kernels_for

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
        padded = -(-len(unit) // BATCH_ALIGNMENT) * BATCH_ALIGNMENT
        codes = torch.empty(padded, code_width, dtype=torch.int8, device=unit.device)
        scales, residuals = unit.new_empty(2, padded)
        sample_kernels_for(unit).code_batch(unit, codes, scales, residuals)
        return cls(codes.T, scales, residuals)
