"""Writing a checkpoint: all ranks together, under a temporary name, published by one rename."""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import save

from partial_fc import center_state
from trainer.agreement import together
from trainer.checkpoint.description import FOLDER, Description, complete_checkpoints
from trainer.checkpoint.parts import Part, PartsSavePlanner
from trainer.checkpoint.storage import RawWriter
from trainer.checkpoint.trained import CENTER_MOMENTUM, CENTERS, Position, Trained, own_state, shared_state
from trainer.checkpoint.tree import split_tree
from trainer.config import Config
from trainer.world import World


class CheckpointWriteError(OSError):
    """A checkpoint could not be written (disk full, no permission); earlier ones are untouched."""


def save_checkpoint(
    run_folder: Path, trained: Trained, position: Position, *, config: Config, world: World, keep: int
) -> Path:
    """Write the checkpoint of ``position.step``, then delete all but the newest ``keep``; all ranks call it.

    Raises CheckpointWriteError on every rank if one cannot write; nothing of the checkpoint is left then.
    """
    parent = run_folder / FOLDER
    folder = parent / f"step_{position.step:08d}"
    draft = parent / f".{folder.name}.part"

    def prepare() -> None:
        if world.is_first:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)

    def publish() -> None:
        if world.is_first:
            description.write(draft)
            _sync_folder(draft)
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
            _sync_folder(parent)
            for old in complete_checkpoints(run_folder)[:-keep]:
                shutil.rmtree(old, ignore_errors=True)

    try:
        with _write_errors(draft):
            together(world, prepare, "checkpoint")
            writer = RawWriter(draft, f"rank_{world.rank:04d}.bin")
            own, parts = split_tree(own_state(trained, world), f"rank_{world.rank:04d}")
            shared, shared_tensors = split_tree(shared_state(trained), "shared")
            state = _parts(trained, parts, shared_tensors if world.is_first else {})
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "torch.distributed is disabled")  # said of every world of one
                save(state, storage_writer=writer, planner=PartsSavePlanner(), no_dist=world.world_size == 1)
            description = Description(
                step=position.step,
                samples=position.samples,
                loader=position.loader,
                world_size=world.world_size,
                num_classes=trained.head.num_classes,
                embedding_dim=trained.head.embedding_dim,
                config=config.to_dict(),
                shared=shared,
                ranks=_of_all_ranks(own, world),
                tensors=writer.index,
            )
            together(world, publish, "checkpoint")
    except Exception:
        if world.is_first:
            shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def _parts(trained: Trained, *whole: dict[str, Tensor]) -> dict[str, Part]:
    head = trained.head
    rows = {
        CENTERS: head.stored_centers.detach(),
        CENTER_MOMENTUM: center_state(head, trained.center_optimizer)["momentum"],
    }
    parts = {
        name: Part(tensor, head.class_shard.start, head.num_classes)
        for name, tensor in rows.items()
        if tensor is not None
    }
    return parts | {name: Part(tensor) for tensors in whole for name, tensor in tensors.items()}


def _of_all_ranks(own: dict[str, Any], world: World) -> list[dict[str, Any]]:
    if world.world_size == 1:
        return [own]
    gathered: list[dict[str, Any]] = [{} for _ in range(world.world_size)]
    dist.all_gather_object(gathered, own)
    return gathered


@contextmanager
def _write_errors(draft: Path) -> Iterator[None]:
    """A failed write on any rank -> CheckpointWriteError, with the file and the way out."""
    try:
        yield
    except (OSError, CheckpointException) as error:
        cause: BaseException = error
        if isinstance(error, CheckpointException):
            cause = next(iter(error.failures.values()))[0]
        if not isinstance(cause, OSError):
            raise cause from None
        advice = "the checkpoint is not written, earlier ones are intact; make room and run the same command again"
        path = cause.filename or draft
        raise CheckpointWriteError(cause.errno, f"{cause.strerror}: {advice}", str(path)) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
