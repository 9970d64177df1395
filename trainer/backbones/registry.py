"""The backbones by name: configuration and construction."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self, get_args

import torch.distributed as dist
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from trainer.absolute_path import AbsolutePath
from trainer.backbones.iresnet import BLOCKS, IResNet
from trainer.backbones.mobilefacenet import MobileFaceNet
from trainer.backbones.normalization import Normalization, convert_normalization
from trainer.backbones.precision import TRUNK_TYPES, Precision
from trainer.backbones.pretrained import load_weights, read_state_dict
from trainer.backbones.vit import PATCH_SIZE, SIZES, VisionTransformer
from trainer.errors import ConfigError

BackboneName = Literal["mobilefacenet", "iresnet18", "iresnet34", "iresnet50", "iresnet100", "vit_t", "vit_s", "vit_b"]
BACKBONE_NAMES: tuple[str, ...] = get_args(BackboneName)

STRIDE = 16
"""How many input pixels one position of the last feature map stands for, in every convolutional backbone."""


class BackboneConfig(BaseModel):
    """The network that turns images into embeddings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: BackboneName = "mobilefacenet"
    embedding_dim: int = Field(default=512, gt=0)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="of the features before their projection")
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0, description="stochastic depth; transformers only")
    mask_ratio: float = Field(
        default=0.0, ge=0.0, le=0.95, description="share of tokens hidden in training; transformers only"
    )
    patch_size: int | None = Field(
        default=None, ge=4, description=f"side of a patch in pixels, {PATCH_SIZE} unless given; transformers only"
    )
    normalization: Normalization = Field(
        default="batch", description="batch: local batch; sync_batch: global batch; group: every sample alone"
    )
    activation_checkpointing: bool = Field(
        default=False, description="less memory, more time: activations are computed again in the backward pass"
    )
    precision: Precision = Field(default="float32", description="of the trunk; embeddings are float32 either way")
    pretrained: AbsolutePath | None = Field(
        default=None, description="weights to start from: state-dict file, run folder or checkpoint folder"
    )

    @model_validator(mode="after")
    def _keys_of_transformers(self) -> Self:
        if self.name not in SIZES:
            for key in ("drop_path", "mask_ratio", "patch_size"):
                if getattr(self, key):
                    raise ValueError(
                        f"{key} = {getattr(self, key)} does not apply to {self.name}: leave it out or choose one of "
                        f"{', '.join(SIZES)}"
                    )
        return self


def build_backbone(
    config: BackboneConfig,
    *,
    image_size: int = 112,
    group: dist.ProcessGroup | None = None,
    read_weights: Callable[[Path], dict[str, Tensor]] = read_state_dict,
) -> nn.Module:
    """Build the network and load ``config.pretrained`` if given.

    The module maps images [B, 3, S, S] float in [-1, 1], S = ``image_size``, to embeddings [B, D] float32 that
    are not normalised. Weights are drawn from torch's global generator: seed it before. ``group``: the ranks over
    which "sync_batch" normalises, None for all. ``read_weights`` turns ``config.pretrained`` into a state dict.

    Raises:
        ConfigError: the network cannot work on ``image_size``, or the pretrained weights do not fit.
    """
    module = _network(config, image_size)
    convert_normalization(module, config.normalization, group=group)
    if config.pretrained is not None:
        load_weights(module, read_weights(config.pretrained), source=config.pretrained)
    return module


def _network(config: BackboneConfig, image_size: int) -> nn.Module:
    trunk_dtype = TRUNK_TYPES[config.precision]
    if config.name in SIZES:
        return VisionTransformer(
            SIZES[config.name],
            config.embedding_dim,
            image_size=image_size,
            patch_size=_checked_patch_size(config, image_size),
            dropout=config.dropout,
            drop_path=config.drop_path,
            mask_ratio=config.mask_ratio,
            trunk_dtype=trunk_dtype,
            activation_checkpointing=config.activation_checkpointing,
        )
    if image_size < 2 * STRIDE or image_size % STRIDE:
        raise ConfigError(f"image size {image_size}: must be a multiple of {STRIDE}, at least {2 * STRIDE}; try 112")
    if config.name == "mobilefacenet":
        return MobileFaceNet(
            config.embedding_dim,
            image_size=image_size,
            dropout=config.dropout,
            trunk_dtype=trunk_dtype,
            activation_checkpointing=config.activation_checkpointing,
        )
    return IResNet(
        BLOCKS[config.name],
        config.embedding_dim,
        image_size=image_size,
        dropout=config.dropout,
        trunk_dtype=trunk_dtype,
        activation_checkpointing=config.activation_checkpointing,
    )


def _checked_patch_size(config: BackboneConfig, image_size: int) -> int:
    """P. Raises ConfigError for images that it does not divide; 9 in 112 is the exception of published weights."""
    patch_size = config.patch_size or PATCH_SIZE
    published = (image_size, patch_size) == (112, PATCH_SIZE)
    if image_size < 2 * patch_size or (image_size % patch_size and not published):
        fitting = [size for size in range(4, image_size // 2 + 1) if image_size % size == 0]
        nearest = min(fitting, key=lambda size: abs(size - PATCH_SIZE), default=None)
        advice = f"backbone.patch_size = {nearest}" if nearest else "another image size"
        raise ConfigError(
            f"image size {image_size}: {config.name} cuts images into patches of {patch_size} pixels, which must "
            f"divide it, at least twice; try {advice}"
        )
    return patch_size
