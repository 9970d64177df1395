"""IResNet: the residual networks of ArcFace, full resolution in the first layer, no pooling at the end.

Shapes: B batch, S image side, D embedding_dim. Module names and tensor shapes are those of InsightFace's
arcface_torch (r18, r34, r50, r100), so its published weights load at S = 112.

References: Deng et al., "ArcFace", CVPR 2019, arXiv 1801.07698; Duta et al., "Improved Residual Networks for
Image and Video Recognition", ICPR 2020, arXiv 2004.04989.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainer.backbones.activation_checkpointing import run_block
from trainer.backbones.channel_prelu import ChannelPReLU
from trainer.backbones.channels_last import Conv2d, to_fast_layout
from trainer.backbones.precision import leave_trunk, trunk_autocast

CHANNELS = (64, 128, 256, 512)
BLOCKS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}


class PreNormBlock(nn.Module):
    """norm, conv 3x3, norm, PReLU, conv 3x3 (with the stride), norm; plus the input or its 1x1 projection.

    Input [B, in_channels, H, W], output [B, out_channels, H / stride, W / stride].
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.prelu = ChannelPReLU(out_channels)
        self.conv2 = Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The residual branch plus the shortcut."""
        out: Tensor = self.conv1(self.bn1(x))
        out = self.bn3(self.conv2(self.prelu(self.bn2(out))))
        # In place is safe: a norm's backward needs its input, not its output.
        return out.add_(x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):
    """Images [B, 3, S, S] in [-1, 1] -> embeddings [B, D], not normalised.

    Embeddings have the type of the weights, float32 as built. ``blocks`` and ``channels`` give number and width of
    the residual blocks of the four stages; ``image_size`` is S, a multiple of 16. With ``trunk_dtype`` of 16 bits the
    convolutional trunk runs under autocast; the projection stays in float32. ``activation_checkpointing`` keeps the
    inputs of the blocks only and computes the rest again when needed.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        embedding_dim: int = 512,
        *,
        channels: Sequence[int] = CHANNELS,
        image_size: int = 112,
        dropout: float = 0.0,
        trunk_dtype: torch.dtype = torch.float32,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.trunk_dtype = trunk_dtype
        self.activation_checkpointing = activation_checkpointing
        self.conv1 = Conv2d(3, channels[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.prelu = ChannelPReLU(channels[0])
        self.layer1 = _stage(channels[0], channels[0], blocks[0])
        self.layer2 = _stage(channels[0], channels[1], blocks[1])
        self.layer3 = _stage(channels[1], channels[2], blocks[2])
        self.layer4 = _stage(channels[2], channels[3], blocks[3])
        self.bn2 = nn.BatchNorm2d(channels[3])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels[3] * (image_size // 16) ** 2, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim)
        # The scale of each embedding component stays 1: the head normalises anyway.
        self.features.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        with trunk_autocast(images.device.type, self.trunk_dtype):
            saving = self.activation_checkpointing
            x = run_block(self._stem, to_fast_layout(images), checkpointed=saving, modules=(self.bn1,))
            for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
                for block in stage:
                    x = run_block(block, x, checkpointed=saving)
            x = self.dropout(torch.flatten(self.bn2(x), 1))
        return leave_trunk(self.features(self.fc(leave_trunk(x))))

    def _stem(self, images: Tensor) -> Tensor:
        out: Tensor = self.prelu(self.bn1(self.conv1(images)))
        return out


def _stage(in_channels: int, out_channels: int, blocks: int) -> nn.Sequential:
    """``blocks`` blocks, the first of which halves the resolution and sets the width."""
    return nn.Sequential(
        OrderedDict(
            (
                str(i),
                PreNormBlock(in_channels if i == 0 else out_channels, out_channels, stride=2 if i == 0 else 1),
            )
            for i in range(blocks)
        )
    )
