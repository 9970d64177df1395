"""Reading a checkpoint back, on as many ranks as there are now."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load

from partial_fc.center_loading import CenterLoading, check_fit
from trainer.agreement import PeerFailedError, first_rank_decides, of_all_ranks, together
from trainer.checkpoint.center_files import CenterFiles
from trainer.checkpoint.description import Description, read_description
from trainer.checkpoint.draft import set_aside
from trainer.checkpoint.folders import complete_checkpoints
from trainer.checkpoint.parts import Part, PartsLoadPlanner
from trainer.checkpoint.rank_states import needed_states, one_motion, without_momentum
from trainer.checkpoint.storage import DamagedCheckpointError, RawReader
from trainer.checkpoint.trained import SEEN_CLASSES, Position, Trained, load_shared_state
from trainer.checkpoint.tree import empty_tensors, join_tree
from trainer.errors import ConfigError
from trainer.metrics_so_far import share_out
from trainer.world import World


def load_checkpoint(folder: Path, trained: Trained, *, world: World, seed: int = 0) -> Position:
    """Put the saved state into ``trained``, this rank's random state in place, and return the position.

    Any number of ranks can read it. On the number that wrote it, random states go on; on another, each rank's is made
    anew from (seed, rank, step). Nothing is changed unless all ranks could read all they need. What is as large as the
    centers is read twice for that, and goes where it stays: it is never held in a second copy.
    Raises ConfigError, one line and on all ranks, for a checkpoint that does not fit, and DamagedCheckpointError for
    one that is not what was written.
    """
    description = first_rank_decides(world, lambda: _description_or_damage(folder))
    if isinstance(description, DamagedCheckpointError):
        raise description
    reader = _together(world, lambda: RawReader(folder, description.tensors))
    head, shard = trained.head, trained.head.class_shard
    try:
        has_motion = all(each["motion"] is not None for each in description.ranks)
        check_fit(head, description.num_classes, description.embedding_dim, has_motion=has_motion)
        states = needed_states(description, shard, world)
        tensors = empty_tensors([description.shared, without_momentum(states)], reader.metadata)
        seen = {}
        if SEEN_CLASSES in reader.metadata.state_dict_metadata:  # earlier versions did not count them
            seen[SEEN_CLASSES] = Part(torch.empty(len(shard), dtype=torch.uint8), shard.start, head.num_classes)
        read_parts(reader, seen | {name: Part(tensor) for name, tensor in tensors.items()}, world=world)
        shared, read = join_tree(description.shared, tensors), join_tree(without_momentum(states), tensors)
        _put_centers(reader, trained, states, read, shared["head"], world)
        if seen:
            head.seen.load_state(seen[SEEN_CLASSES].tensor)
        load_shared_state(trained, shared)
        if description.world_size != world.world_size:
            torch.manual_seed(((seed * 1_000_003 + description.step) * 4099 + world.rank) % (1 << 63))
        else:
            (own,) = read
            torch.set_rng_state(own["random_state"])
            if world.device.type == "cuda" and "cuda_random_state" in own:
                torch.cuda.set_rng_state(own["cuda_random_state"], world.device)
        metrics = share_out([each["metrics"] for each in description.ranks], world.rank, world.world_size)
    except DamagedCheckpointError:
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{folder} does not fit this run: {str(error).splitlines()[0]}") from None
    return Position(description.step, description.samples, description.loader, metrics)


def _put_centers(
    reader: RawReader,
    trained: Trained,
    states: list[dict[str, Any]],
    read: list[dict[str, Any]],
    numbers: dict[str, Any],
    world: World,
) -> None:
    """Fill the head's rows, once all ranks know that theirs are whole. states: as saved; read: with their tensors, but
    for momentum; numbers: of the head.
    """
    motion = one_motion([each["motion"] for each in read])
    found: list[CenterFiles] = []

    def check() -> None:
        saved = [] if motion is None else [each["motion"] for each in states]
        classes = None if motion is None else motion["classes"]
        found.append(CenterFiles(reader, trained.head, motions=saved, classes=classes))
        found[0].check()

    def put() -> None:
        loading = CenterLoading(
            trained.head,
            trained.center_optimizer,
            steps_taken=int(numbers["steps_taken"]),
            control=numbers["control"],
            motion=motion,
            has_momentum=found[0].has_momentum,
        )
        found[0].put_into(loading)

    _on_all(world, check)
    _on_all(world, put)


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


def _on_all(world: World, action: Callable[[], None]) -> None:
    """Run ``action`` on every rank; what goes wrong on one goes wrong on all, who say the same."""
    failure: Exception | None = None
    try:
        action()
    except Exception as error:
        failure = error
    is_damage = isinstance(failure, DamagedCheckpointError)
    told = of_all_ranks(world, (is_damage, None if failure is None else str(failure)))
    if failure is not None:
        raise failure
    for damage, text in told:
        if text is not None:
            raise (DamagedCheckpointError if damage else ValueError)(text)


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
