"""Checkpoints of a run: written whole or not at all, read by any number of ranks, without executing anything.

checkpoints/step_00000100/   checkpoint.json  rank_0000.bin  rank_0001.bin ...

Each rank writes its class centers and what else only it has; rank 0 also what all ranks share. ``checkpoint.json``
holds the position, the configuration and the index of all tensors. The folder gets its name only when all is on disk.
"""

from trainer.checkpoint.backbone import LoadedBackbone, load_backbone, read_weights
from trainer.checkpoint.description import Description, Score, read_description
from trainer.checkpoint.errors import CheckpointWriteError
from trainer.checkpoint.folders import complete_checkpoints, find_checkpoint
from trainer.checkpoint.load import load_checkpoint, load_newest
from trainer.checkpoint.retention import Retention
from trainer.checkpoint.save import save_checkpoint
from trainer.checkpoint.saver import CheckpointSaver, Outcome
from trainer.checkpoint.storage import DamagedCheckpointError
from trainer.checkpoint.trained import Passed, Position, Trained

__all__ = [
    "CheckpointSaver",
    "CheckpointWriteError",
    "DamagedCheckpointError",
    "Description",
    "LoadedBackbone",
    "Outcome",
    "Passed",
    "Position",
    "Retention",
    "Score",
    "Trained",
    "complete_checkpoints",
    "find_checkpoint",
    "load_backbone",
    "load_checkpoint",
    "load_newest",
    "read_description",
    "read_weights",
    "save_checkpoint",
]
