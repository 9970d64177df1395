"""Vision transformers for faces: 144 tokens from patches of 9x9 pixels, all of them flattened into the embedding.

Shapes: B batch, S image side, P patch side, T = (S // P)^2 tokens, K tokens kept by masking, E width, H heads,
D embedding_dim. Module names and tensor shapes are those of InsightFace's arcface_torch (``vit_t``, ``vit_s``,
``vit_b``), so weights trained there load at S = 112 and P = 9.

References: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, arXiv 2010.11929; An et al., "Killing Two
Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC", CVPR 2022, and the
transformers of its published code; masking: He et al., "Masked Autoencoders", CVPR 2022, arXiv 2111.06377.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.backbones.activation_checkpointing import run_block
from trainer.backbones.channels_last import Conv2d
from trainer.backbones.precision import leave_trunk, trunk_autocast

HEADS = 8
PATCH_SIZE = 9
INIT_STD = 0.02


class TransformerSize(NamedTuple):
    """Tokens of ``width`` numbers pass ``depth`` blocks."""

    width: int
    depth: int


SIZES = {
    "vit_t": TransformerSize(width=256, depth=12),
    "vit_s": TransformerSize(width=512, depth=12),
    "vit_b": TransformerSize(width=512, depth=24),
}


class PatchEmbedding(nn.Module):
    """Non-overlapping patches, each mapped to a token; what is left of the image at its end is not seen."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = Conv2d(3, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, T, E], row by row."""
        out: Tensor = self.proj(images).flatten(2).transpose(1, 2)
        return out


class Attention(nn.Module):
    """Multi-head self-attention over tokens, without bias in queries, keys and values."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, E] -> [B, T, E]."""
        queries, keys, values = self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values)  # [B, H, T, E / H]
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Perceptron(nn.Module):
    """Two linear maps with ReLU6 between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, E] -> [B, T, E]."""
        out: Tensor = self.fc2(F.relu6(self.fc1(x)))
        return out


class TransformerBlock(nn.Module):
    """Attention, then the perceptron, each after a layer norm and added to its input.

    ``drop_path``: probability that a sample skips a branch in training (stochastic depth).
    """

    def __init__(self, width: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.mlp = Perceptron(width)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, E] -> [B, T, E]."""
        x = x + self._kept(self.attn(self.norm1(x)))
        return x + self._kept(self.mlp(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        """``branch``, zeroed for some samples and scaled up for the others, the same on average."""
        if not self.training or self.drop_path == 0.0:
            return branch
        keep = 1.0 - self.drop_path
        return branch * branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep).div_(keep)


class VisionTransformer(nn.Module):
    """Images [B, 3, S, S] in [-1, 1] -> embeddings [B, D], not normalised.

    Embeddings have the type of the weights, float32 as built. With ``trunk_dtype`` of 16 bits the blocks run under
    autocast; their sum of tokens, the last norm and the projection stay in float32. ``drop_path`` grows linearly from
    0 in the first block to its value in the last. ``mask_ratio``: share of tokens that, in training, do not enter the
    blocks but the projection as one learned vector. ``dropout`` acts on the flattened tokens.
    ``activation_checkpointing`` keeps the inputs of the blocks only and computes the rest again when needed.
    """

    def __init__(
        self,
        size: TransformerSize,
        embedding_dim: int = 512,
        *,
        image_size: int = 112,
        patch_size: int = PATCH_SIZE,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        mask_ratio: float = 0.0,
        trunk_dtype: torch.dtype = torch.float32,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        width, depth = size
        tokens = (image_size // patch_size) ** 2
        self.trunk_dtype = trunk_dtype
        self.activation_checkpointing = activation_checkpointing
        self.kept_tokens = int(tokens * (1.0 - mask_ratio))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        # Unused without masking: DistributedDataParallel would wait for its gradient.
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width), requires_grad=self.kept_tokens < tokens)
        self.patch_embed = PatchEmbedding(width, patch_size)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, drop_path=drop_path * i / max(1, depth - 1)) for i in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.feature = nn.Sequential(
            nn.Linear(tokens * width, width, bias=False),
            nn.BatchNorm1d(width, eps=2e-5),
            nn.Linear(width, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim, eps=2e-5),
        )
        nn.init.normal_(self.mask_token, std=INIT_STD)
        nn.init.trunc_normal_(self.pos_embed, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INIT_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        kept = None
        with trunk_autocast(images.device.type, self.trunk_dtype):
            x = self.patch_embed(images) + self.pos_embed
            if self.training and self.kept_tokens < x.shape[1]:
                kept = self._draw(x)
                x = x.gather(1, kept)
            for block in self.blocks:
                x = run_block(block, x, checkpointed=self.activation_checkpointing)
        x = self.norm(leave_trunk(x))
        if kept is not None:
            hidden = self.mask_token.to(x.dtype).repeat(len(x), self.pos_embed.shape[1], 1)
            x = hidden.scatter(1, kept, x)
        return leave_trunk(self.feature(self.dropout(x.flatten(1))))

    def _draw(self, x: Tensor) -> Tensor:
        """[B, T, E] -> [B, K, E] int64: which tokens of each sample are kept, repeated along E."""
        order = torch.rand(x.shape[:2], device=x.device).argsort(dim=1)
        return order[:, : self.kept_tokens, None].expand(-1, -1, x.shape[2])
