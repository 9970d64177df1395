"""MobileFaceNet: inverted residual blocks with PReLU and a global depthwise convolution instead of pooling.

Shapes: B batch, S image side, D embedding_dim. Module names and tensor shapes are those of InsightFace's
arcface_torch (``mbf``: width 64 * 2, blocks 1-4-6-2), so its published weights load at S = 112.

Reference: Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on Mobile
Devices", CCBR 2018, arXiv 1804.07573.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from trainer.backbones.activation_checkpointing import run_block
from trainer.backbones.channel_prelu import ChannelPReLU
from trainer.backbones.channels_last import Conv2d, to_fast_layout
from trainer.backbones.precision import leave_trunk, trunk_autocast

STEM_CHANNELS = 128
WIDE_CHANNELS = 256
HEAD_CHANNELS = 512


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and, if ``activated``, a PReLU per channel.

    Input [B, in_channels, H, W], output [B, out_channels, H / stride, W / stride] (``padding`` permitting).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activated: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        if activated:
            self.layers.append(ChannelPReLU(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layers in order."""
        out: Tensor = self.layers(x)
        return out


class InvertedBottleneck(nn.Module):
    """Expand to ``hidden_channels``, filter each channel alone (3x3), project back without activation.

    With ``residual`` the input is added to the output: stride 1 and equal channels only.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, hidden_channels: int, stride: int, residual: bool
    ) -> None:
        super().__init__()
        self.residual = residual
        self.layers = nn.Sequential(
            ConvNorm(in_channels, hidden_channels),
            ConvNorm(hidden_channels, hidden_channels, kernel=3, stride=stride, padding=1, groups=hidden_channels),
            ConvNorm(hidden_channels, out_channels, activated=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H / stride, W / stride]."""
        out: Tensor = self.layers(x)
        # In place is safe: a norm's backward needs its input, not its output.
        return out.add_(x) if self.residual else out


class ResidualStage(nn.Module):
    """``blocks`` residual bottlenecks of equal width, one after the other."""

    def __init__(self, channels: int, *, blocks: int, hidden_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                InvertedBottleneck(channels, channels, hidden_channels=hidden_channels, stride=1, residual=True)
                for _ in range(blocks)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> the same shape."""
        out: Tensor = self.layers(x)
        return out


class GlobalDepthwise(nn.Module):
    """One learned weight per channel and position instead of an average, then a linear map and batch norm.

    Input [B, 512, side, side], output [B, D].
    """

    def __init__(self, embedding_dim: int, *, side: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(HEAD_CHANNELS, HEAD_CHANNELS, kernel=side, groups=HEAD_CHANNELS, activated=False),
            nn.Flatten(),
            nn.Linear(HEAD_CHANNELS, embedding_dim, bias=False),
            nn.BatchNorm1d(embedding_dim),
        )
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Pool, drop (training only), project, normalise."""
        pool, flatten, project, normalise = self.layers
        features = nn.functional.dropout(flatten(pool(x)), self.dropout, self.training)
        out: Tensor = normalise(project(features))
        return out


class MobileFaceNet(nn.Module):
    """Images [B, 3, S, S] in [-1, 1] -> embeddings [B, D], not normalised.

    Embeddings have the type of the weights, float32 as built. ``image_size`` is S, a multiple of 16. With
    ``trunk_dtype`` of 16 bits the convolutional trunk runs under autocast; the last convolution, the pooling and the
    projection stay in float32. ``activation_checkpointing`` keeps the inputs of the blocks only and computes the
    rest again when needed.
    """

    def __init__(
        self,
        embedding_dim: int = 512,
        *,
        image_size: int = 112,
        dropout: float = 0.0,
        trunk_dtype: torch.dtype = torch.float32,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.trunk_dtype = trunk_dtype
        self.activation_checkpointing = activation_checkpointing
        stem, wide = STEM_CHANNELS, WIDE_CHANNELS
        self.layers = nn.ModuleList(
            [
                ConvNorm(3, stem, kernel=3, stride=2, padding=1),
                # 64 groups of two channels, not a depthwise layer: so are the published weights.
                ConvNorm(stem, stem, kernel=3, padding=1, groups=64),
                InvertedBottleneck(stem, stem, hidden_channels=128, stride=2, residual=False),
                ResidualStage(stem, blocks=4, hidden_channels=128),
                InvertedBottleneck(stem, wide, hidden_channels=256, stride=2, residual=False),
                ResidualStage(wide, blocks=6, hidden_channels=256),
                InvertedBottleneck(wide, wide, hidden_channels=512, stride=2, residual=False),
                ResidualStage(wide, blocks=2, hidden_channels=256),
            ]
        )
        self.conv_sep = ConvNorm(wide, HEAD_CHANNELS)
        self.features = GlobalDepthwise(embedding_dim, side=image_size // 16, dropout=dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        x = to_fast_layout(images)
        with trunk_autocast(images.device.type, self.trunk_dtype):
            for block in self._blocks():
                x = run_block(block, x, checkpointed=self.activation_checkpointing)
        return leave_trunk(self.features(self.conv_sep(leave_trunk(x))))

    def _blocks(self) -> Iterator[nn.Module]:
        for layer in self.layers:
            yield from layer.layers if isinstance(layer, ResidualStage) else (layer,)
