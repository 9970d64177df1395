"""Reading a checkpoint back, on as many ranks as there are now."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from partial_fc import load_center_state
from trainer.agreement import PeerFailedError, first_rank_decides, together
from trainer.checkpoint.description import Description, read_description
from trainer.checkpoint.draft import set_aside
from trainer.checkpoint.folders import complete_checkpoints
from trainer.checkpoint.parts import Part, PartsLoadPlanner
from trainer.checkpoint.storage import DamagedCheckpointError, RawReader
from trainer.checkpoint.trained import (
    CENTER_DTYPES,
    CENTER_MOMENTUM,
    CENTERS,
    SEEN_CLASSES,
    Position,
    Trained,
    load_shared_state,
)
from trainer.checkpoint.tree import empty_tensors, join_tree
from trainer.errors import ConfigError
from trainer.metrics_so_far import share_out
from trainer.world import World

MOTION_ARRAYS = ("classes", "momentum", "touched", "expiry", "unrest")


def load_checkpoint(folder: Path, trained: Trained, *, world: World, seed: int = 0) -> Position:
    """Put the saved state into ``trained``, this rank's random state in place, and return the position.

    Any number of ranks can read it. On the number that wrote it, random states go on; on another, each rank's is made
    anew from (seed, rank, step). Nothing is changed unless all ranks could read all they need.
    Raises ConfigError, one line and on all ranks, for a checkpoint that does not fit, and DamagedCheckpointError for
    one that is not what was written.
    """
    description = first_rank_decides(world, lambda: _description_or_damage(folder))
    if isinstance(description, DamagedCheckpointError):
        raise description
    reader = _together(world, lambda: RawReader(folder, description.tensors))
    try:
        tensors, rows, states = _destinations(description, reader, trained, world)
        read_parts(reader, rows | {name: Part(tensor) for name, tensor in tensors.items()}, world=world)
        shared = join_tree(description.shared, tensors)
        motions = [each["motion"] for each in join_tree(states, tensors)]
        piece = _centers(description, trained, rows, shared["head"], motions)
        load_center_state(trained.head, trained.center_optimizer, [piece])
        if SEEN_CLASSES in rows:
            trained.head.seen.load_state(rows[SEEN_CLASSES].tensor)
        load_shared_state(trained, shared)
        if description.world_size != world.world_size:
            torch.manual_seed(((seed * 1_000_003 + description.step) * 4099 + world.rank) % (1 << 63))
        else:
            (own,) = join_tree(states, tensors)
            torch.set_rng_state(own["random_state"])
            if world.device.type == "cuda" and "cuda_random_state" in own:
                torch.cuda.set_rng_state(own["cuda_random_state"], world.device)
        metrics = share_out([each["metrics"] for each in description.ranks], world.rank, world.world_size)
    except DamagedCheckpointError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{folder} does not fit this run: {str(error).splitlines()[0]}") from None
    return Position(description.step, description.samples, description.loader, metrics)


def load_newest(
    run_folder: Path, trained: Trained, *, world: World, seed: int, before: int | None = None
) -> tuple[Position | None, list[str]]:
    """Load a run's newest whole checkpoint: its position (None without any), and what was wrong with newer ones.

    before: only checkpoints of earlier steps than this count.

    Newer ones that are damaged are set aside under another name: they must not count among the newest when old ones
    are deleted.
    Raises ConfigError when there are checkpoints and none is whole, or the newest whole one does not fit this run.
    """
    names = first_rank_decides(world, lambda: [str(path) for path in complete_checkpoints(run_folder, before=before)])
    damages: list[str] = []
    for name in reversed(names):
        try:
            position = load_checkpoint(Path(name), trained, world=world, seed=seed)
        except (DamagedCheckpointError, PeerFailedError) as error:
            damages.append(str(error))
            continue
        if world.is_first:
            for damaged in names[len(names) - len(damages) :]:
                set_aside(Path(damaged))
        return position, damages
    if damages:
        raise ConfigError(f"{run_folder}: none of its {len(names)} checkpoints is whole; the newest: {damages[0]}")
    return None, []


def read_parts(reader: RawReader, parts: dict[str, Part], *, world: World | None) -> None:
    """Fill ``parts``; all ranks of ``world`` call it, or one alone with None. Raises what was wrong, on all ranks."""
    alone = world is None or world.world_size == 1
    with _plain_errors(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # said of every world of one
        load(parts, storage_reader=reader, planner=PartsLoadPlanner(), no_dist=alone)


def _description_or_damage(folder: Path) -> Description | DamagedCheckpointError:
    try:
        return read_description(folder)
    except DamagedCheckpointError as error:
        return error  # as a value it keeps its type on all ranks


def _destinations(
    description: Description, reader: RawReader, trained: Trained, world: World
) -> tuple[dict[str, Tensor], dict[str, Part], list[dict[str, Any]]]:
    """Room for what this rank needs: whole tensors, its rows of the centers, and the states of ranks that hold some."""
    shard = trained.head.class_shard
    states = description.ranks
    if description.world_size == world.world_size:
        states = [states[world.rank]]
    else:
        holders = [each for each in states if each["start"] < shard.stop and each["stop"] > shard.start]
        states = [{"motion": each["motion"]} for each in holders or states[:1]]
    tensors = empty_tensors([description.shared, states], reader.metadata)
    rows = {}
    kept = trained.head.stored_centers.dtype
    for name in (CENTERS, CENTER_MOMENTUM):
        saved = reader.metadata.state_dict_metadata.get(name)
        if isinstance(saved, TensorStorageMetadata):
            # Centers come as they were saved: the head takes either type, and nothing is lost on the way here.
            dtype = torch.float32 if kept in CENTER_DTYPES else kept
            if name == CENTERS and {kept, saved.properties.dtype} <= CENTER_DTYPES:
                dtype = saved.properties.dtype
            room = torch.empty(len(shard), trained.head.embedding_dim, dtype=dtype)
            rows[name] = Part(room, shard.start, trained.head.num_classes)
    if SEEN_CLASSES in reader.metadata.state_dict_metadata:  # earlier versions did not count them
        rows[SEEN_CLASSES] = Part(torch.empty(len(shard), dtype=torch.uint8), shard.start, trained.head.num_classes)
    return tensors, rows, states


def _centers(
    description: Description, trained: Trained, rows: dict[str, Part], head: dict[str, Any], motions: list[Any]
) -> dict[str, Any]:
    """This rank's piece, as :func:`partial_fc.load_center_state` takes it."""
    shard = trained.head.class_shard
    motion = motions[0]
    if motion is not None:
        if len({each["now"] for each in motions}) > 1:
            raise ValueError("its momentum comes from different steps")
        motion = motion | {name: torch.cat([each[name] for each in motions]) for name in MOTION_ARRAYS}
    momentum = rows.get(CENTER_MOMENTUM)
    return {
        "start": shard.start,
        "stop": shard.stop,
        "num_classes": description.num_classes,
        "embedding_dim": description.embedding_dim,
        "steps_taken": head["steps_taken"],
        "control": head["control"],
        "centers": rows[CENTERS].tensor,
        "momentum": None if momentum is None else momentum.tensor,
        "motion": motion,
    }


def _together(world: World, make: Callable[[], RawReader]) -> RawReader:
    made: list[RawReader] = []
    together(world, lambda: made.append(make()), "checkpoint")
    return made[0]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What went wrong on whichever rank, on all."""
    try:
        yield
    except CheckpointException as error:
        cause: BaseException = next(iter(error.failures.values()))[0]
        raise cause from None
