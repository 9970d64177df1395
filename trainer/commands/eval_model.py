"""The network that ``pfc eval`` judges: of a run, a checkpoint or a state-dict file, trained or not."""

import argparse

import torch
from pydantic import ValidationError
from torch import nn

from trainer.backbones import BackboneConfig, build_backbone, load_pretrained
from trainer.checkpoint import load_backbone
from trainer.errors import ConfigError


def load_model(arguments: argparse.Namespace, device: torch.device) -> tuple[nn.Module, int, int]:
    """The network on ``device``, its image size, and the step of the checkpoint it came from (0: none)."""
    if not arguments.model.exists():
        raise ConfigError(f"{arguments.model}: no such run folder, checkpoint folder or state-dict file")
    if arguments.model.is_file():
        if arguments.checkpoint is not None:
            raise ConfigError(f"--checkpoint {arguments.checkpoint}: {arguments.model} is a file, not a run folder")
        config, image_size = _described(arguments)
        module, step = _build(config, image_size, arguments.seed), 0
        if not arguments.untrained:
            load_pretrained(module, arguments.model)
        return module.to(device), image_size, step
    if arguments.backbone or arguments.embedding_dim or arguments.image_size:
        raise ConfigError(
            f"{arguments.model} is a folder and knows its own network; "
            "leave out --backbone, --embedding-dim and --image-size"
        )
    loaded = load_backbone(arguments.model, device, which=arguments.checkpoint)
    if not arguments.untrained:
        return loaded.module, loaded.image_size, loaded.step
    config = loaded.config.backbone.model_copy(update={"pretrained": None})
    return _build(config, loaded.image_size, arguments.seed).to(device), loaded.image_size, 0


def _described(arguments: argparse.Namespace) -> tuple[BackboneConfig, int]:
    """The network that the options describe."""
    if arguments.backbone is None:
        raise ConfigError(
            f"{arguments.model} holds weights only; say which network they are for: "
            "--backbone NAME [--embedding-dim D] [--image-size S]"
        )
    embedding_dim = 512 if arguments.embedding_dim is None else arguments.embedding_dim
    try:
        config = BackboneConfig(name=arguments.backbone, embedding_dim=embedding_dim)
    except ValidationError:
        raise ConfigError(f"--embedding-dim {embedding_dim}: must be at least 1; 512 is usual") from None
    return config, 112 if arguments.image_size is None else arguments.image_size


def _build(config: BackboneConfig, image_size: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(config, image_size=image_size)
