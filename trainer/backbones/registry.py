"""The backbones by name: configuration and construction."""

from typing import Literal, get_args

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from trainer.absolute_path import AbsolutePath
from trainer.backbones.iresnet import BLOCKS, IResNet
from trainer.backbones.mobilefacenet import MobileFaceNet
from trainer.backbones.pretrained import load_pretrained
from trainer.errors import ConfigError

BackboneName = Literal["mobilefacenet", "iresnet18", "iresnet34", "iresnet50", "iresnet100"]
BACKBONE_NAMES: tuple[str, ...] = get_args(BackboneName)

STRIDE = 16
"""How many input pixels one position of the last feature map stands for, in every backbone."""


class BackboneConfig(BaseModel):
    """The network that turns images into embeddings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: BackboneName = "mobilefacenet"
    embedding_dim: int = Field(default=512, gt=0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="before the last linear map")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the convolutional trunk; embeddings are float32 either way"
    )
    pretrained: AbsolutePath | None = Field(default=None, description="state-dict file to start from")


def build_backbone(config: BackboneConfig, *, image_size: int = 112) -> nn.Module:
    """Build the network and load ``config.pretrained`` if given.

    The module maps images [B, 3, S, S] float in [-1, 1], S = ``image_size``, to embeddings [B, D] float32 that
    are not normalised. Weights are drawn from torch's global generator: seed it before.

    Raises:
        ConfigError: ``image_size`` is not a multiple of 16, at least 32, or the pretrained weights do not fit.
    """
    if image_size < 2 * STRIDE or image_size % STRIDE:
        raise ConfigError(f"image size {image_size}: must be a multiple of {STRIDE}, at least {2 * STRIDE}; try 112")
    trunk_dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    module: nn.Module
    if config.name == "mobilefacenet":
        module = MobileFaceNet(
            config.embedding_dim, image_size=image_size, dropout=config.dropout, trunk_dtype=trunk_dtype
        )
    else:
        module = IResNet(
            BLOCKS[config.name],
            config.embedding_dim,
            image_size=image_size,
            dropout=config.dropout,
            trunk_dtype=trunk_dtype,
        )
    if config.pretrained is not None:
        load_pretrained(module, config.pretrained)
    return module
