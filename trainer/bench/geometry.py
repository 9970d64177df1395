"""Centers and embeddings whose cosines spread as in a trained model.

Shape letters: C classes, B batch, D embedding size, m effective dimension.
"""

import math

import torch
from torch import Tensor

POSITIVE_ANGLE = 0.9  # rad: where SFace's a holds the positives of a model in training
BLOCK = 65536


def effective_dimension(spread: float, embedding_dim: int) -> int:
    """m such that random unit vectors in m dimensions have cosines of standard deviation ``spread`` = 1/sqrt(m).

    0.06 (m = 278) as in well-trained 512-d models, 0.10 (m = 100) as in weak or early ones; at most D.
    """
    return min(embedding_dim, max(2, round(1.0 / spread**2)))


def draw_centers(rows: int, embedding_dim: int, dimension: int, generator: torch.Generator) -> Tensor:
    """[C, D] float32 rows of norm about 1 in a random m-dimensional subspace (the same for equal generator states)."""
    basis = torch.linalg.qr(torch.randn(embedding_dim, dimension, generator=generator)).Q.T.contiguous()
    centers = torch.empty(rows, embedding_dim)
    for start in range(0, rows, BLOCK):
        stop = min(start + BLOCK, rows)
        torch.mm(
            torch.randn(stop - start, dimension, generator=generator) / math.sqrt(dimension),
            basis,
            out=centers[start:stop],
        )
    return centers


def draw_embeddings(centers: Tensor, identities: Tensor, generator: torch.Generator) -> Tensor:
    """[B, D]: each at 0.9 rad from its own center, in a random direction within the centers' subspace."""
    own = torch.nn.functional.normalize(centers[identities])
    # A mix of many centers is a random direction of their subspace.
    mixed = torch.randint(len(centers), (len(identities), 64), generator=generator)
    signs = torch.randn(mixed.shape, generator=generator)
    direction = torch.einsum("bkd,bk->bd", centers[mixed], signs)
    direction -= (direction * own).sum(1, keepdim=True) * own
    direction = torch.nn.functional.normalize(direction)
    return math.cos(POSITIVE_ANGLE) * own + math.sin(POSITIVE_ANGLE) * direction
