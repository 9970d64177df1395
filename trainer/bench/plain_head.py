"""What a plain PyTorch script does: normalise, one linear layer, SFace by autograd, torch.optim.SGD.

The comparison of ``pfc bench head``; not used in training. It builds [B, C] matrices.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from partial_fc import SFace


class PlainSFaceHead(nn.Module):
    """Dense SFace. centers: [C, D]; forward: [B, D], [B] int64 -> scalar."""

    def __init__(self, centers: Tensor, loss: SFace) -> None:
        super().__init__()
        self.centers = nn.Parameter(centers)
        self.loss = loss

    def forward(self, embeddings: Tensor, identities: Tensor) -> Tensor:
        """Mean SFace over the batch."""
        cosines = F.linear(F.normalize(embeddings), F.normalize(self.centers))
        own = cosines.gather(1, identities[:, None])
        with torch.no_grad():
            push = self.loss.negative_coefficient(cosines).scatter_(1, identities[:, None], 0.0)
            pull = self.loss.positive_coefficient(own)
        return ((push * cosines).sum() - (pull * own).sum()) / len(identities)
