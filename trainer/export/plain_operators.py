"""A network rewritten with operators that every ONNX program has and agrees on; the same function of an image.

Letters: B batch, T tokens, E width, H heads, C channels, G groups.

Found by trial: of what torch's exporter makes of attention, OpenCV 4.14 reads one image, not two; of its group norm
4.14 ends with a division by zero (SIGFPE) and 5.0 refuses the feature vectors.
"""

import copy

import torch
from torch import Tensor, nn

from trainer.backbones.vit import HEADS, Attention


def with_plain_operators(network: nn.Module) -> nn.Module:
    """A copy of ``network`` with attention and group norm written out."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Attention):
                parent.register_module(name, PlainAttention(child))
            elif isinstance(child, nn.GroupNorm):
                parent.register_module(name, PlainGroupNorm(child))
    return network.eval()


class PlainAttention(nn.Module):
    """softmax(q k^T / sqrt(E / H)) v with queries, keys and values from three products: nothing is cut or stacked."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        weights = attention.qkv.weight.detach().chunk(3)
        self.queries, self.keys, self.values = (nn.Parameter(part.T.contiguous(), False) for part in weights)
        self.scale = (weights[0].shape[0] // HEADS) ** -0.5
        self.proj = attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, E] -> [B, T, E]."""
        queries, keys, values = (
            (x @ weight).view(*x.shape[:2], HEADS, -1).transpose(1, 2)
            for weight in (self.queries, self.keys, self.values)
        )
        shares = (queries @ keys.transpose(2, 3) * self.scale).softmax(dim=3)  # [B, H, T, T]
        out: Tensor = self.proj((shares @ values).transpose(1, 2).flatten(2))
        return out


class PlainGroupNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) over each of G groups of an image, then scale and shift of each channel."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] or [B, C, height, width] -> the same shape."""
        grouped = x.reshape(x.shape[0], self.groups, -1)
        centered = grouped - grouped.mean(2, keepdim=True)
        normed = centered / torch.sqrt((centered * centered).mean(2, keepdim=True) + self.eps)
        of_channels = (-1, *[1] * (x.dim() - 2))
        return normed.reshape(x.shape) * self.weight.view(of_channels) + self.bias.view(of_channels)
