"""Whether a run could start: all that ``pfc train`` finds out before its first step, without ranks, GPU or a trace.

Left to the start itself: the decoder's library, the driver, and DeepSpeed's own opinion of its keys.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from data_pipeline import RecordReader, check_identities
from data_pipeline.loader import Loader
from data_pipeline.pairs import read_pairs
from trainer.backbones import build_backbone
from trainer.backbones.pretrained import check_weights
from trainer.checkpoint import (
    DamagedCheckpointError,
    Description,
    complete_checkpoints,
    read_description,
    read_weights,
)
from trainer.checkpoint.storage import RawReader
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.growth.old_backbone import OldBackbone
from trainer.growth.old_run import OldRun, find_checkpoint, old_names
from trainer.optimizers import backbone_optimizer
from trainer.run_data import open_loader, open_records
from trainer.run_folder import check_run_folder
from trainer.run_identities import RunIdentities
from trainer.run_plan import make_plan
from trainer.run_verification import names_of_sets
from trainer.world import World, gpu_number
from trainer.writers.packages import require_packages


@dataclass(frozen=True)
class Checked:
    """What a run would be. None: not known without its data.

    config: with what the data say filled in. resumes_from: step of the checkpoint it would go on from.
    """

    config: Config
    world_size: int
    num_identities: int | None
    num_images: int | None = None
    steps_per_epoch: int | None = None
    total_steps: int | None = None
    resumes_from: int | None = None

    @property
    def global_batch(self) -> int:
        """Images of a step over all ranks."""
        return self.config.data.batch_size * self.world_size


def check_run(config: Config, *, world_size: int, with_data: bool = True) -> Checked:
    """Check ``config`` for ``world_size`` ranks.

    with_data: False on a machine that sees neither data nor run folders; files are left alone then, all of them.
    Raises ConfigError or DataError, one line, the same that ``pfc train`` would end with. Writes nothing.
    """
    _check_world(config, world_size)
    require_packages(config.log)
    names_of_sets(config.evaluation)
    with torch.device("meta"):  # shapes and names alone
        backbone = build_backbone(
            config.backbone.model_copy(update={"pretrained": None}), image_size=config.data.image_size
        )
    if not with_data:
        _check_identities_go_round(config.data.num_identities, world_size)
        return Checked(config, world_size, config.data.num_identities, total_steps=config.train.steps)
    reader = open_records(config)
    num_identities = config.data.num_identities or reader.num_identities
    check_identities(reader, num_identities)
    _check_identities_go_round(num_identities, world_size)
    loader = open_loader(config, reader, World(0, world_size, 0, torch.device("cpu")), decoder="cpu")
    _check_writable(config.run.output)
    config = _with_identities(config, reader, num_identities)
    plan = make_plan(config, loader)
    for path in config.evaluation.pairs:
        read_pairs(path)
    if config.backbone.pretrained is not None:
        check_weights(backbone, read_weights(config.backbone.pretrained), source=config.backbone.pretrained)
    check_run_folder(config)
    resumes_from = _check_checkpoint(config, loader, num_identities)
    if config.growth is not None and resumes_from is None:
        _check_growth(config, backbone)
    return Checked(
        config, world_size, num_identities, len(reader), plan.steps_per_epoch, plan.total_steps, resumes_from
    )


def _check_world(config: Config, world_size: int) -> None:
    gpu_number(config.run.device)
    if config.run.world_size not in (None, world_size):
        raise ConfigError(
            f"run.world_size is {config.run.world_size}, and {world_size} ranks are to be started: start as many, or "
            "change run.world_size"
        )


def _check_identities_go_round(num_identities: int | None, world_size: int) -> None:
    if num_identities is not None and num_identities < world_size:
        raise ConfigError(
            f"{num_identities} identities for {world_size} ranks: some would hold no class center; start fewer ranks"
        )


def _with_identities(config: Config, reader: RecordReader, num_identities: int) -> Config:
    identities = RunIdentities(reader, num_identities, config.run.output)
    resolved = {
        "num_identities": num_identities,
        "identities_sha256": identities.settle(config.data.identities_sha256),
    }
    return config.model_copy(update={"data": config.data.model_copy(update=resolved)})


def _check_writable(folder: Path) -> None:
    """Raise ConfigError where the run's folder could not be made, or not be written into."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError(f"run.output {folder} cannot be made: {existing} is no folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"run.output {folder}: no permission to write into {existing}: choose another folder")


def _check_checkpoint(config: Config, loader: Loader, num_identities: int) -> int | None:
    """Step of the newest checkpoint whose files are there; their bytes are read when the run starts."""
    damages: list[str] = []
    for folder in reversed(complete_checkpoints(config.run.output)):
        try:
            description = read_description(folder)
            RawReader(folder, description.tensors)
        except DamagedCheckpointError as error:
            damages.append(str(error))
            continue
        _check_fit(folder, description, config, num_identities)
        loader.load_state_dict(description.loader)
        return description.step
    if damages:
        raise ConfigError(
            f"{config.run.output}: none of its {len(damages)} checkpoints is whole; the newest: {damages[0]}"
        )
    return None


def _check_fit(folder: Path, description: Description, config: Config, num_identities: int) -> None:
    for what, theirs, ours in (
        ("classes", description.num_classes, num_identities),
        ("numbers in an embedding", description.embedding_dim, config.backbone.embedding_dim),
    ):
        if theirs != ours:
            raise ConfigError(f"{folder} does not fit this run: it has {theirs} {what}, the run {ours}")


def _check_growth(config: Config, backbone: nn.Module) -> None:
    assert config.growth is not None, "asked for"
    folder, description = find_checkpoint(config)
    old = OldRun.open(folder, description)
    alone = World(0, 1, 0, torch.device("cpu"))
    weights = OldBackbone.read(old, alone, keep_momentum=config.growth.momentum == "keep")
    weights.check(backbone, backbone_optimizer(config.optimizer, backbone))
    old_names(config, old.folder, description)
