"""Writing one checkpoint while nothing else happens."""

from pathlib import Path

from trainer.checkpoint.retention import Retention
from trainer.checkpoint.saver import CheckpointSaver
from trainer.checkpoint.trained import Position, Trained
from trainer.config import Config
from trainer.world import World


def save_checkpoint(
    run_folder: Path, trained: Trained, position: Position, *, config: Config, world: World, keep: int
) -> Path:
    """Write the checkpoint of ``position.step``, then delete all but the newest ``keep``; all ranks call it.

    Raises CheckpointWriteError on every rank if one cannot write; nothing of the checkpoint is left then.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    saver = CheckpointSaver(run_folder, config=config, world=world, retention=Retention(keep))
    (outcome,) = saver.save(trained, position, finish=True)
    if outcome.error is not None:
        raise outcome.error
    return outcome.folder
