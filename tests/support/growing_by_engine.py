"""Old runs saved by one engine, grown under each, on the same ranks; and old runs that cannot be grown from."""

import hashlib
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from growing import config_for, current, old_run, small_buffers

from data_pipeline.identity_names import read_names
from trainer.building import build_trained
from trainer.checkpoint import Description, complete_checkpoints, read_description
from trainer.checkpoint.trained import shared_state
from trainer.engine import DDPEngine, DeepSpeedEngine
from trainer.errors import ConfigError
from trainer.growth import Growth
from trainer.run_data import open_data
from trainer.stopping import StopRequest
from trainer.world import World

HEAD = "sface"
ENGINES: tuple[int | None, ...] = (None, 0, 1, 2, 3)
OLD_ENGINES: tuple[int | None, ...] = (None, 3)
Spoil = Callable[[Path], None]


def tables(stage: int | None) -> dict[str, Any]:
    """stage: of ZeRO; None is DDP."""
    if stage is None:
        return {}
    zero = {"stage": stage} | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})
    return {"train": {"engine": "deepspeed"}, "deepspeed": {"zero_optimization": zero}}


def grow_by_engine(rank: int, world_size: int, folder: Path, old_records: Path, records: Path) -> dict[Any, Any]:
    """By (engine of the old run, engine of the new one) what has grown; and what is said of each spoiled old run."""
    world = World(rank, world_size, rank, torch.device("cpu"))
    found: dict[Any, Any] = {}
    for was in OLD_ENGINES:
        old_run(rank, world_size, folder / f"old {was}", old_records, [HEAD], **tables(was))
    small_buffers()
    for was in OLD_ENGINES:
        for stage in ENGINES:
            found[was, stage] = _grown(folder / f"old {was}" / HEAD, folder, records, stage, world)
    return found | {"refused": refused(folder, records, world), "diverged": diverged(folder, records, world)}


def _grown(old: Path, folder: Path, records: Path, stage: int | None, world: World) -> dict[str, Any]:
    growth = {"from": str(old), "batch_size": 4, "images_per_identity": 4}
    config = config_for(folder / "grown", records, HEAD, world.world_size, growth=growth, **tables(stage))
    data = open_data(config, world)
    growing = Growth.open(config, world)
    trained, engine = build_trained(config, data.num_identities, world, check=growing.check)
    with engine:
        names = read_names(records / "identities.tsv", num_identities=data.num_identities)
        grown = growing.carry_out(
            trained,
            data.loader.reader,
            network=engine.to_evaluate,
            names=lambda: names,
            stop=StopRequest(),
            say=lambda text: None,
        )
        # What a checkpoint of it would hold, and what evaluation sees; whole on the first rank alone under ZeRO.
        state = shared_state(trained)
        whole = {name: value.detach().clone() for name, value in engine.to_evaluate().state_dict().items()}
        return current(trained) | {
            "own_angle": grown.own_angle,
            "weights": {name: value.detach().clone() for name, value in state["backbone"].items()},
            "optimizer": state["optimizer"],
            "evaluated": whole,
        }


# What an old run may have that a new one cannot use.


def _rewrite(checkpoint: Path, change: Callable[[Description], None]) -> None:
    description = read_description(checkpoint)
    change(description)
    description.write(checkpoint)


def _put(checkpoint: Path, name: str, number: float) -> None:
    """Into the first element of a tensor, checksum and all: as a run that has diverged would have saved it."""

    def change(description: Description) -> None:
        chunk = description.tensors[name]["chunks"][0]
        path = checkpoint / chunk["file"]
        content = bytearray(path.read_bytes())
        content[chunk["begin"] : chunk["begin"] + 4] = struct.pack("<f", number)
        path.write_bytes(content)
        chunk["sha256"] = hashlib.sha256(content[chunk["begin"] : chunk["begin"] + chunk["size"]]).hexdigest()

    _rewrite(checkpoint, change)


def _forget(checkpoint: Path) -> None:
    def change(description: Description) -> None:
        del description.shared["backbone"][next(iter(description.shared["backbone"]))]

    _rewrite(checkpoint, change)


def _lose(checkpoint: Path) -> None:
    def change(description: Description) -> None:
        del description.tensors[next(iter(description.shared["backbone"].values()))["$tensor"]]

    _rewrite(checkpoint, change)


def _weight(checkpoint: Path, table: str) -> str:
    """Name of a float tensor in the checkpoint that is not a scalar."""
    for value in read_description(checkpoint).shared[table].values():
        value = value if "$tensor" in value else value["momentum_buffer"]
        if value["size"] and value["dtype"] == "float32":
            return str(value["$tensor"])
    raise AssertionError(f"no {table} in {checkpoint}")


def _momentum_of_nobody(checkpoint: Path) -> None:
    def change(description: Description) -> None:
        optimizer = description.shared["optimizer"]
        optimizer["no.such.parameter"] = optimizer.pop(next(iter(optimizer)))

    _rewrite(checkpoint, change)


SPOILED: dict[str, tuple[Spoil, dict[str, Any], str]] = {
    "another backbone": (lambda path: None, {"backbone": {"name": "iresnet18"}}, "set backbone.name = 'mobilefacenet'"),
    "another dim": (lambda path: None, {"backbone": {"embedding_dim": 24}}, "set backbone.embedding_dim = 16"),
    "other layers": (lambda path: None, {"backbone": {"normalization": "batch"}}, "set backbone.normalization to"),
    "NaN": (lambda path: _put(path, _weight(path, "backbone"), float("nan")), {}, "is not finite: the run they come"),
    "missing": (_forget, {}, "is missing"),
    "lost": (_lose, {}, "cannot be grown from (it holds no shared.backbone"),
    "momentum of nobody": (_momentum_of_nobody, {}, "of no.such.parameter, which this run's backbone does not have"),
    "infinite momentum": (
        lambda path: _put(path, _weight(path, "optimizer"), float("inf")),
        {},
        "that is not finite: set growth.momentum = 'empty'",
    ),
    "another optimizer": (
        lambda path: None,
        {"optimizer": {"kind": "adamw", "lr": 0.01, "center_lr": 0.1}},
        "was another one, with",
    ),
}


def refused(folder: Path, records: Path, world: World) -> dict[Any, tuple[str, bool]]:
    """By kind and engine: what is said, and whether an engine was made."""
    made: list[object] = []
    for kind in (DDPEngine, DeepSpeedEngine):
        real = kind.__init__

        def init(self: Any, *args: Any, real: Any = real, **kwargs: Any) -> None:
            made.append(self)
            real(self, *args, **kwargs)

        kind.__init__ = init  # type: ignore[method-assign]
    told = {}
    for name, (spoil, keys, _) in SPOILED.items():
        old = folder / f"spoiled {name}"
        if world.is_first:
            shutil.copytree(folder / "old None" / HEAD, old)
            spoil(complete_checkpoints(old)[-1])
        torch.distributed.barrier()
        for stage in (None, 3):
            growth = {"growth": {"from": str(old)}}
            config = config_for(folder / "refused", records, HEAD, world.world_size, **growth, **tables(stage), **keys)
            data = open_data(config, world)
            try:
                build_trained(config, data.num_identities, world, check=Growth.open(config, world).check)
            except ConfigError as error:
                told[name, stage] = str(error), bool(made)
    return told


def diverged(folder: Path, records: Path, world: World) -> dict[int | None, str]:
    """By engine: what is said where a center that stays is NaN, which only the rank that reads it sees."""
    old = folder / "old with a bad center"
    if world.is_first:
        shutil.copytree(folder / "old None" / HEAD, old)
        _put(complete_checkpoints(old)[-1], "centers", float("nan"))
    torch.distributed.barrier()
    told = {}
    for stage in (None, 3):
        try:
            _grown(old, folder, records, stage, world)
        except ConfigError as error:
            told[stage] = str(error)
    return told
