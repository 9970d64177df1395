"""Which backbone a state dict belongs to, told from its names and shapes."""

from collections.abc import Mapping

from torch import Tensor

from trainer.backbones.iresnet import BLOCKS
from trainer.backbones.vit import SIZES

EMBEDDING_BIASES = ("features.bias", "features.layers.3.bias", "feature.3.bias")
"""The last layer's bias [D] in the three families."""


def backbone_of(state: Mapping[str, Tensor]) -> str | None:
    """The registered name, or None for weights of something else."""
    if "layers.0.layers.0.weight" in state and "conv_sep.layers.0.weight" in state:
        return "mobilefacenet"
    blocks = tuple(_numbered(state, f"layer{stage}.") for stage in (1, 2, 3, 4))
    for name, known in BLOCKS.items():
        if blocks == known:
            return name
    positions = state.get("pos_embed")
    if positions is not None and positions.dim() == 3:
        for name, size in SIZES.items():
            if (positions.shape[2], _numbered(state, "blocks.")) == size:
                return name
    return None


def embedding_dim_of(state: Mapping[str, Tensor]) -> int | None:
    """D, or None for weights of something else."""
    for name in EMBEDDING_BIASES:
        if name in state and state[name].dim() == 1:
            return len(state[name])
    return None


def has_running_statistics(state: Mapping[str, Tensor]) -> bool:
    """Whether batch norm, local or synchronised, is among the layers."""
    return any(name.endswith(".running_mean") for name in state)


def _numbered(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many different numbers follow ``prefix``."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)})
