"""The truth the sharded head is tested against: dense, one process, autograd, any precision.

It builds whole [B, C] matrices: for tests and small problems only.
Shape letters: B batch, C classes, D embedding size.
"""

import torch
from torch import Tensor

from partial_fc.sface import SFace, angle

NORM_FLOOR = 1e-12


def normalize(rows: Tensor) -> Tensor:
    """Rows divided by their norm; a zero row stays zero and gets no gradient (it has no direction)."""
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > NORM_FLOOR, rows / norms.clamp_min(NORM_FLOOR), torch.zeros_like(rows))


def dense_sface(embeddings: Tensor, identities: Tensor, centers: Tensor, loss: SFace) -> tuple[Tensor, Tensor, Tensor]:
    """SFace over all classes, differentiable by autograd.

    embeddings: [B, D]; identities: [B] int64; centers: [C, D], same floating type as the embeddings.
    Returns ``(loss, intra, inter)`` scalars, loss = intra + inter, means over the batch. Coefficients are
    detached, so autograd yields exactly the derivative stated by :class:`SFace`, through both normalisations.
    """
    cosines = normalize(embeddings) @ normalize(centers).T
    theta = angle(cosines.detach())
    positive = torch.zeros_like(cosines, dtype=torch.bool)
    positive[torch.arange(len(identities)), identities] = True
    pull = loss.scale * torch.sigmoid(loss.slope * (theta - loss.a))
    push = loss.scale * torch.sigmoid(loss.slope * (loss.b - theta))
    intra = -(torch.where(positive, pull, 0.0) * cosines).sum() / len(identities)
    inter = (torch.where(positive, 0.0, push) * cosines).sum() / len(identities)
    return intra + inter, intra, inter
