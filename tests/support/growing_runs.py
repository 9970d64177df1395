"""Whole runs on a few people that grow: configuration files, and what their checkpoints hold as plain numbers."""

from pathlib import Path

import torch
from growing import DIM, SIZE
from torch import Tensor

from trainer.building import build_trained
from trainer.checkpoint import load_checkpoint
from trainer.config import load_config
from trainer.world import World

RUN = """
[run]
output = "{output}"
seed = 7
device = "cpu"
timeout_seconds = 60
[data]
records = "{records}"
image_size = {size}
batch_size = {batch_size}
decoder = "cpu"
[backbone]
embedding_dim = {dim}
dropout = 0.2
normalization = "{normalization}"
[head]
b = 1.4
[optimizer]
lr = 0.05
[train]
steps = {steps}
[checkpoint]
every_steps = 2
keep = 99
[log]
every_steps = 1
"""
GROWTH = """
[growth]
from = "{old}"
images_per_identity = 4
batch_size = 1
"""


def write_run(
    path: Path,
    *,
    output: Path,
    records: Path,
    old: Path | None = None,
    steps: int = 4,
    batch_size: int = 6,
    normalization: str = "group",
) -> Path:
    """Windows of four images a rank where it grows: several of those that stay, and of the others."""
    text = RUN.format(
        output=output,
        records=records,
        size=SIZE,
        dim=DIM,
        steps=steps,
        batch_size=batch_size,
        normalization=normalization,
    )
    path.write_text(text + (GROWTH.format(old=old) if old is not None else ""))
    return path


def centers_of(config: Path, checkpoint: Path, num_identities: int) -> Tensor:
    """[C, D], current: what lies in the files may still have to move."""
    world = World(0, 1, 0, torch.device("cpu"))
    random_state = torch.get_rng_state()
    trained, _ = build_trained(load_config(config), num_identities, world)
    load_checkpoint(checkpoint, trained, world=world)
    torch.set_rng_state(random_state)
    return trained.head.centers.detach().clone()
