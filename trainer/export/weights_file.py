"""Which network a state dict is of, all of it told from names and shapes: nobody has to say what is in the file."""

import math
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from trainer.backbones import BACKBONE_NAMES, BackboneConfig
from trainer.backbones.iresnet import CHANNELS
from trainer.backbones.registry import STRIDE
from trainer.backbones.vit import PATCH_SIZE
from trainer.backbones.weights_origin import backbone_of, embedding_dim_of, has_running_statistics
from trainer.errors import ConfigError

PUBLISHED_SIZE = 112


def describe_weights(state: Mapping[str, Tensor], source: Path) -> tuple[BackboneConfig, int]:
    """The configuration and the image size S of the network that ``state``, read from ``source``, belongs to.

    Raises ConfigError for weights of something else.
    """
    name, embedding_dim = backbone_of(state), embedding_dim_of(state)
    try:
        if name is None or embedding_dim is None:
            raise ValueError("unknown names")
        image_size, patch_size = _geometry(name, state)
        normalization = "batch" if has_running_statistics(state) else "group"
        given = {"name": name, "embedding_dim": embedding_dim, "patch_size": patch_size, "normalization": normalization}
        return BackboneConfig.model_validate(given), image_size
    except (KeyError, IndexError, ValueError, ValidationError):
        raise ConfigError(
            f"{source}: weights of no backbone that pfc has ({', '.join(BACKBONE_NAMES)}, in the names of "
            "InsightFace's arcface_torch)"
        ) from None


def _geometry(name: str, state: Mapping[str, Tensor]) -> tuple[int, int | None]:
    """S and, of transformers, P."""
    if name == "mobilefacenet":
        return STRIDE * state["features.layers.0.layers.0.weight"].shape[3], None
    if name.startswith("iresnet"):
        return STRIDE * math.isqrt(state["fc.weight"].shape[1] // CHANNELS[-1]), None
    side, patch_size = math.isqrt(state["pos_embed"].shape[1]), state["patch_embed.proj.weight"].shape[3]
    # Published weights cut 12 x 12 patches of 9 pixels from 112, and leave 4 pixels out.
    published = (side, patch_size) == (PUBLISHED_SIZE // PATCH_SIZE, PATCH_SIZE)
    return PUBLISHED_SIZE if published else side * patch_size, patch_size
