"""The truth the sharded head is tested against: dense, one process, autograd, any precision.

It builds whole [B, C] matrices: for tests and small problems only.
Shape letters: B batch, C classes, D embedding size.
"""

import torch
from torch import Tensor

from partial_fc.margins import CombinedMargin
from partial_fc.sface import SFace, angle

NORM_FLOOR = 1e-12


def normalize(rows: Tensor) -> Tensor:
    """Rows divided by their norm; a zero row stays zero and gets no gradient (it has no direction)."""
    norms = rows.norm(dim=1, keepdim=True)
    return torch.where(norms > NORM_FLOOR, rows / norms.clamp_min(NORM_FLOOR), torch.zeros_like(rows))


def dense_sface(
    embeddings: Tensor,
    identities: Tensor,
    centers: Tensor,
    loss: SFace,
    *,
    negative_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """SFace over all classes, differentiable by autograd.

    embeddings: [B, D]; identities: [B] int64; centers: [C, D], same floating type as the embeddings.
    negative_weights: [C], a factor for each center's part as a negative; None: 1.
    Returns ``(loss, intra, inter)`` scalars, loss = intra + inter, means over the batch. Coefficients are
    detached, so autograd yields exactly the derivative stated by :class:`SFace`, through both normalisations.
    """
    cosines = normalize(embeddings) @ normalize(centers).T
    theta = angle(cosines.detach())
    positive = torch.zeros_like(cosines, dtype=torch.bool)
    positive[torch.arange(len(identities)), identities] = True
    pull = loss.scale * torch.sigmoid(loss.slope * (theta - loss.a))
    push = loss.scale * torch.sigmoid(loss.slope * (loss.b - theta))
    if negative_weights is not None:
        push = push * negative_weights
    intra = -(torch.where(positive, pull, 0.0) * cosines).sum() / len(identities)
    inter = (torch.where(positive, 0.0, push) * cosines).sum() / len(identities)
    return intra + inter, intra, inter


def dense_margin_softmax(embeddings: Tensor, identities: Tensor, centers: Tensor, loss: CombinedMargin) -> Tensor:
    """Mean cross-entropy over all classes with the margins of ``loss``, differentiable by autograd.

    Shapes as for :func:`dense_sface`. Written from the formula: autograd differentiates arccos and cos themselves, so
    a cosine of exactly -1 or 1 has no finite gradient here.
    """
    cosines = normalize(embeddings) @ normalize(centers).T
    everyone = torch.arange(len(identities))
    own = cosines[everyone, identities]
    moved = loss.m1 * torch.arccos(own) + loss.m2 if (loss.m1, loss.m2) != (1.0, 0.0) else None
    if moved is None:
        hardened = own
    elif loss.monotone:
        turns = (moved.detach() / torch.pi).floor()
        hardened = torch.where(turns % 2 == 0, torch.cos(moved), -torch.cos(moved)) - 2 * turns
    else:
        hardened = torch.cos(moved)
    positive = torch.zeros_like(cosines, dtype=torch.bool)
    positive[everyone, identities] = True
    logits = torch.where(positive, (hardened - loss.m3)[:, None], cosines) * loss.scale
    if loss.interclass_filter is not None:
        logits = torch.where(~positive & (cosines > loss.interclass_filter), -torch.inf, logits)
    return torch.nn.functional.cross_entropy(logits, identities)
