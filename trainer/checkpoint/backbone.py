"""The network alone, out of a checkpoint: for evaluation and export."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainer.backbones import build_backbone, read_state_dict
from trainer.checkpoint.description import NAME, Description, read_description
from trainer.checkpoint.folders import find_checkpoint
from trainer.checkpoint.load import read_parts
from trainer.checkpoint.parts import Part
from trainer.checkpoint.storage import DamagedCheckpointError, RawReader
from trainer.checkpoint.tree import empty_tensors, join_tree
from trainer.config import Config, config_from
from trainer.errors import ConfigError


@dataclass(frozen=True)
class LoadedBackbone:
    """A trained network, ready to embed. image_size: S of its input [B, 3, S, S]. step: of the checkpoint."""

    module: nn.Module
    image_size: int
    step: int
    config: Config


def load_backbone(path: Path, device: torch.device, *, which: str | None = None) -> LoadedBackbone:
    """The backbone of a checkpoint folder, or of a run folder: ``which`` is newest (None), best, or a step.

    Raises ConfigError when there is none or it is damaged.
    """
    folder = find_checkpoint(path, which)
    description = read_description(folder)
    config = config_from(description.config, str(folder / NAME))
    # The weights come from the checkpoint, so the run's pretrained file need not exist any more.
    module = build_backbone(
        config.backbone.model_copy(update={"pretrained": None}), image_size=config.data.image_size
    ).to(device)
    try:
        module.load_state_dict(_weights(folder, description))
    except RuntimeError as error:
        raise ConfigError(f"{folder}: {str(error).splitlines()[0]}") from None
    return LoadedBackbone(module, config.data.image_size, description.step, config)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A backbone's state dict, on the CPU: of a state-dict file, a run folder (its newest checkpoint) or a
    checkpoint folder.

    Raises ConfigError when there is none or it is damaged.
    """
    if not path.is_dir():
        return read_state_dict(path)
    folder = find_checkpoint(path)
    return _weights(folder, read_description(folder))


def _weights(folder: Path, description: Description) -> dict[str, Tensor]:
    reader = RawReader(folder, description.tensors)
    try:
        saved = description.shared["backbone"]
        tensors = empty_tensors(saved, reader.metadata)
        read_parts(reader, {name: Part(tensor) for name, tensor in tensors.items()}, world=None)
        return dict(join_tree(saved, tensors))
    except DamagedCheckpointError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{folder}: holds no backbone ({error}); use another checkpoint") from None
