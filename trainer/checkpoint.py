"""Checkpoints of a run: written whole or not at all, read with ``weights_only=True``.

    checkpoints/step_00000100/   checkpoint.json  backbone.pt  rank_0000.pt  rank_0001.pt ...

``backbone.pt`` holds what all ranks share, ``rank_*.pt`` each rank's class centers with their momentum (by global
class id) and its random state, ``checkpoint.json`` the position and the configuration. The folder gets its name
only when all of it is on disk.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from partial_fc import CenterSGD, PartialFC, center_state, load_center_state
from trainer.agreement import together
from trainer.backbones import build_backbone
from trainer.config import Config, config_from
from trainer.errors import ConfigError
from trainer.world import World

FORMAT_VERSION = 2
FOLDER = "checkpoints"


@dataclass(frozen=True)
class Trained:
    """Everything of a run that learns or counts, as far as a checkpoint holds it."""

    backbone: nn.Module
    backbone_optimizer: torch.optim.Optimizer
    head: PartialFC
    center_optimizer: CenterSGD


@dataclass(frozen=True)
class Position:
    """Where a run stands: optimizer steps taken, samples seen by all ranks, the loader's exact place."""

    step: int
    samples: int
    loader: dict[str, Any]


def save_checkpoint(
    run_folder: Path, trained: Trained, position: Position, *, config: Config, world: World, keep: int
) -> Path:
    """Write the checkpoint of ``position.step``, then delete all but the newest ``keep``; all ranks call it.

    If one rank cannot write (disk full), all raise and nothing of it is left.
    """
    parent = run_folder / FOLDER
    folder = parent / f"step_{position.step:08d}"
    draft = parent / f".{folder.name}.part"

    def prepare() -> None:
        if world.is_first:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)

    def write() -> None:
        _write_tensors(draft / rank_file(world.rank), _rank_state(trained, world))
        if world.is_first:
            _write_tensors(
                draft / "backbone.pt",
                {"backbone": trained.backbone.state_dict(), "optimizer": trained.backbone_optimizer.state_dict()},
            )
            description = {
                "version": FORMAT_VERSION,
                "step": position.step,
                "samples": position.samples,
                "loader": position.loader,
                "world_size": world.world_size,
                "num_classes": trained.head.num_classes,
                "config": config.to_dict(),
            }
            with _written_durably(draft / "checkpoint.json") as file:
                file.write(json.dumps(description, indent=1).encode())

    def publish() -> None:
        if world.is_first:
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
            _sync_folder(parent)
            for old in complete_checkpoints(run_folder)[:-keep]:
                shutil.rmtree(old, ignore_errors=True)

    try:
        together(world, prepare, "checkpoint")
        together(world, write, "checkpoint")
        together(world, publish, "checkpoint")
    except Exception:
        if world.is_first:
            shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def complete_checkpoints(run_folder: Path) -> list[Path]:
    """The run's complete checkpoints, oldest first; unfinished drafts are not among them."""
    found = (run_folder / FOLDER).glob("step_*/checkpoint.json")
    return sorted((path.parent for path in found), key=lambda folder: int(folder.name.removeprefix("step_")))


def load_checkpoint(folder: Path, trained: Trained, *, world: World) -> Position:
    """Put the saved state into ``trained`` and this rank's random state in place; returns the position.

    Raises ConfigError, one line, for another world size, another format or a damaged file.
    """
    description = read_description(folder)
    if description["world_size"] != world.world_size:
        raise ConfigError(
            f"{folder} was written by {description['world_size']} ranks, this run has {world.world_size}: "
            "resume with the same number of ranks"
        )
    shared = _read_tensors(folder / "backbone.pt", world.device)
    own = _read_tensors(folder / rank_file(world.rank), torch.device("cpu"))
    try:
        trained.backbone.load_state_dict(shared["backbone"])
        trained.backbone_optimizer.load_state_dict(shared["optimizer"])
        load_center_state(trained.head, trained.center_optimizer, [own["centers"]])
        torch.set_rng_state(own["random_state"])
        if world.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda_random_state"], world.device)
    except (KeyError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{folder} does not fit this run: {str(error).splitlines()[0]}") from None
    return Position(description["step"], description["samples"], description["loader"])


def read_description(folder: Path) -> dict[str, Any]:
    """``checkpoint.json`` of a checkpoint folder. Raises ConfigError when missing, damaged or of another format."""
    path = folder / "checkpoint.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["version"]
    except FileNotFoundError:
        raise ConfigError(f"{folder}: not a checkpoint, it has no checkpoint.json") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path}: damaged ({error}); use another checkpoint") from None
    if version != FORMAT_VERSION:
        raise ConfigError(f"{path}: format {version}, this version of pfc reads {FORMAT_VERSION}")
    return dict(description)


@dataclass(frozen=True)
class LoadedBackbone:
    """A trained network, ready to embed. image_size: S of its input [B, 3, S, S]. step: of the checkpoint."""

    module: nn.Module
    image_size: int
    step: int
    config: Config


def load_backbone(path: Path, device: torch.device) -> LoadedBackbone:
    """The backbone of a run folder (its newest checkpoint) or of a checkpoint folder.

    Raises ConfigError when there is none.
    """
    folder = path
    if not (path / "checkpoint.json").exists():
        if not path.exists():
            raise ConfigError(f"{path}: no such run folder, checkpoint folder or .pt file")
        complete = complete_checkpoints(path)
        if not complete:
            raise ConfigError(f"{path}: holds no complete checkpoint; train first: pfc train RUN.toml")
        folder = complete[-1]
    description = read_description(folder)
    config = config_from(description["config"], str(folder / "checkpoint.json"))
    # The weights come from the checkpoint, so the run's pretrained file need not exist any more.
    module = build_backbone(
        config.backbone.model_copy(update={"pretrained": None}), image_size=config.data.image_size
    ).to(device)
    state = _read_tensors(folder / "backbone.pt", device)
    try:
        module.load_state_dict(state["backbone"])
    except (KeyError, RuntimeError) as error:
        raise ConfigError(f"{folder}: {str(error).splitlines()[0]}") from None
    return LoadedBackbone(module, config.data.image_size, description["step"], config)


def rank_file(rank: int) -> str:
    """Name of a rank's own file in a checkpoint folder."""
    return f"rank_{rank:04d}.pt"


def _rank_state(trained: Trained, world: World) -> dict[str, Any]:
    state: dict[str, Any] = {
        "centers": center_state(trained.head, trained.center_optimizer),
        "random_state": torch.get_rng_state(),
    }
    if world.device.type == "cuda":
        state["cuda_random_state"] = torch.cuda.get_rng_state(world.device)
    return state


class CheckpointWriteError(OSError):
    """A checkpoint could not be written (disk full, no permission); earlier ones are untouched."""


@contextmanager
def _written_durably(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # torch.save turns a failed write into a RuntimeError of its own and keeps the cause as context.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        advice = "the checkpoint is not written, earlier ones are intact; make room and run the same command again"
        raise CheckpointWriteError(cause.errno, f"{cause.strerror}: {advice}", str(path)) from error


def _write_tensors(path: Path, content: dict[str, Any]) -> None:
    with _written_durably(path) as file:
        torch.save(content, file)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        return dict(torch.load(path, map_location=device, weights_only=True))
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; the checkpoint is incomplete, use another") from None
    except Exception as error:  # torch.load raises many types for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{path}: damaged or not a checkpoint file ({reason}); use another checkpoint") from None
