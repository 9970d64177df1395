"""The network to export, in float32 and ready to embed, and what is known of where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.backbones import BackboneConfig, build_backbone, read_state_dict
from trainer.backbones.pretrained import check_weights
from trainer.checkpoint import Description, find_checkpoint, load_backbone, read_description
from trainer.checkpoint.folders import FOLDER
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.export.weights_file import describe_weights


@dataclass(frozen=True)
class Source:
    """network: [B, 3, S, S] in [-1, 1] -> [B, D], float32, in evaluation mode; S = image_size.

    backbone: its configuration, without what matters in training alone. The rest is None for a state-dict file, and
    run_folder for a checkpoint that does not lie in one.
    """

    path: Path
    network: nn.Module
    backbone: BackboneConfig
    image_size: int
    config: Config | None = None
    description: Description | None = None
    run_folder: Path | None = None


def load_source(path: Path, which: str | None = None) -> Source:
    """A run folder (``which`` of its checkpoints: newest (None), best, or a step), a checkpoint folder or a state-dict
    file in InsightFace's names.

    Raises ConfigError where there is none, or it is damaged, of an unknown network or not finite.
    """
    if path.is_file():
        if which is not None:
            raise ConfigError(f"--checkpoint {which}: {path} is a file, not a run folder")
        return source_of_state(read_state_dict(path), path)
    if not path.exists():
        raise ConfigError(f"{path}: no such run folder, checkpoint folder or state-dict file")
    folder = find_checkpoint(path, which)
    loaded = load_backbone(folder, torch.device("cpu"))
    real = folder.resolve()
    run_folder = real.parent.parent if real.parent.name == FOLDER else None
    backbone = for_inference(loaded.config.backbone)
    network = _network(backbone, loaded.image_size, loaded.module.state_dict(), folder)
    description = read_description(folder)
    return Source(folder, network, backbone, loaded.image_size, loaded.config, description, run_folder)


def source_of_state(state: Mapping[str, Tensor], path: Path) -> Source:
    """The network whose weights were read from ``path``. Raises ConfigError as :func:`load_source`."""
    backbone, image_size = describe_weights(state, path)
    return Source(path, _network(backbone, image_size, state, path), backbone, image_size)


def for_inference(backbone: BackboneConfig) -> BackboneConfig:
    """The same function of an image, without what only changes training or its speed.

    Weights are float32 whatever the precision of the trunk was, and the running statistics of a synchronised batch
    norm are those of a plain one.
    """
    plain = {
        "pretrained": None, "precision": "float32", "activation_checkpointing": False,
        "dropout": 0.0, "drop_path": 0.0, "mask_ratio": 0.0,
        "normalization": "group" if backbone.normalization == "group" else "batch",
    }  # fmt: skip
    return backbone.model_copy(update=plain)


def _network(backbone: BackboneConfig, image_size: int, state: Mapping[str, Tensor], source: Path) -> nn.Module:
    with torch.device("meta"):  # no random weights that are overwritten at once
        network = build_backbone(backbone, image_size=image_size)
    check_weights(network, state, source=source)
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    network.load_state_dict(weights, assign=True)
    return network.eval().requires_grad_(False)
