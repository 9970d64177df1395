"""An old run on a few people, and new ones grown from it, on any number of ranks; images and backbone are real."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

from data_pipeline import Properties, RecordWriter, write_properties
from data_pipeline.identity_names import IdentityNames, read_names
from data_pipeline.synthetic import synthetic_photo
from partial_fc import HeadStats
from trainer.building import build_trained
from trainer.checkpoint import Position, parts, save_checkpoint
from trainer.config import Config, config_from
from trainer.growth import Growth, mean_embeddings, row_exchange
from trainer.run_data import open_data
from trainer.run_identities import RunIdentities
from trainer.stopping import StopRequest
from trainer.world import World

DIM, SIZE = 16, 32
# Drawn identity and number of images of each, by name.
PEOPLE = {
    "ann": (0, 4),
    "Zoë Müller": (1, 3),
    "山田 太郎": (2, 5),
    "17": (3, 4),
    " bob b. ": (4, 2),
    "eve": (5, 3),
    "o'neill": (6, 4),
    "dan": (7, 1),
    "gone one": (8, 3),
    "gone two": (9, 4),
    "new ✿": (10, 9),
    "single": (11, 1),
    "third new": (12, 4),
    "fourth\u2028new": (13, 3),
}
OLD = list(PEOPLE)[:10]
NEW = [
    *("fourth\u2028new", "eve", "dan", "new ✿", "17", "ann", "third new", "o'neill"),
    *("Zoë Müller", "single", " bob b. ", "山田 太郎"),
]
HEADS = {"sface": {"loss": "sface", "b": 1.4}, "cosface": {"loss": "cosface", "sample_rate": 0.6}}
PER_IDENTITY = 4


def write_people(folder: Path, names: list[str], *, with_names: bool = True) -> Path:
    """A data set of these people, numbered in this order, images of one after those of another."""
    folder.mkdir(parents=True)
    with RecordWriter(folder / "train.rec") as writer:
        for number, name in enumerate(names):
            who, images = PEOPLE[name]
            for image in range(images):
                writer.write(number, synthetic_photo(3, who, image, SIZE, "simple"))
    write_properties(folder, Properties(len(names), SIZE, SIZE))
    if with_names:
        encoded = [name.encode() for name in names]
        IdentityNames.of(range(len(names)), encoded, "test").write(folder / "identities.tsv")
    return folder


def config_for(output: Path, records: Path, head: str, world_size: int = 1, **tables: Any) -> Config:
    values: dict[str, Any] = {
        "run": {"output": str(output), "seed": 7, "device": "cpu"},
        "data": {"records": str(records), "image_size": SIZE, "batch_size": 6 // world_size, "decoder": "cpu"},
        "backbone": {"embedding_dim": DIM, "normalization": "group"},
        "head": HEADS[head],
        "optimizer": {"lr": 0.05},
        "train": {"steps": 5},
    }
    for table, keys in tables.items():
        values[table] = values.get(table, {}) | keys
    return config_from(values, "test")


def small_buffers(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Chunks of three rows of centers, portions of a few rows, windows of two batches."""
    whole, in_chunks = parts.CHUNK_BYTES, parts.Part.chunks

    def chunks(part: parts.Part) -> Iterator[ChunkStorageMetadata]:
        of_centers = part.tensor.dim() == 2 and part.tensor.shape[1] == DIM
        parts.CHUNK_BYTES = 3 * 4 * DIM if of_centers else whole
        yield from in_chunks(part)

    put(parts, "CHUNK_BYTES", whole)  # put back with the rest
    put(parts.Part, "chunks", chunks)
    put(row_exchange, "BUFFER_BYTES", 5 * (4 * DIM + 20))
    put(mean_embeddings, "BUFFER_BYTES", 2 * 4 * 8 * DIM)


def old_run(
    rank: int, world_size: int, folder: Path, records: Path, heads: Sequence[str] = tuple(HEADS), **tables: Any
) -> dict[str, Any]:
    """Train each kind of head for a few steps and save; the centers and momentum of this rank, current."""
    small_buffers()
    world = World(rank, world_size, rank, torch.device("cpu"))
    found = {}
    for head in heads:
        config = config_for(folder / head, records, head, world_size, **tables)
        data = open_data(config, world)
        identities = RunIdentities(data.loader.reader, data.num_identities, config.run.output)
        resolved = {"identities_sha256": identities.settle(None)}
        config = config.model_copy(update={"data": config.data.model_copy(update=resolved)})
        trained, engine = build_trained(config, data.num_identities, world)
        while trained.head.steps_taken < 9:
            for batch in data.loader:
                with engine.micro_batch(last=True):
                    engine.backward(trained.head(engine.embed(batch.images), batch.identities))
                engine.update(0.05, loss_finite=True)
                trained.center_optimizer.step()
                trained.center_optimizer.zero_grad()
        config.run.output.mkdir(parents=True, exist_ok=True)
        save_checkpoint(
            config.run.output, trained, Position(9, 54, data.loader.state_dict()), config=config, world=world, keep=2
        )
        if world.is_first:
            identities.keep()
        found[head] = current(trained)
        engine.close()
    return found


def grown_run(rank: int, world_size: int, folder: Path, records: Path, growth: dict[str, Any]) -> dict[str, Any]:
    """Grow from each run of ``old_run``: what came of it, and what a first forward says of people of either kind."""
    if world_size > 1:
        small_buffers()
    world = World(rank, world_size, rank, torch.device("cpu"))
    found = {}
    for head in HEADS:
        told: list[str] = []
        table = {"from": str(folder / head), "batch_size": 4} | growth
        config = config_for(folder / "grown", records, head, world_size, growth=table)
        data = open_data(config, world)
        growing = Growth.open(config, world)
        trained, engine = build_trained(config, data.num_identities, world, check=growing.check)
        reader = data.loader.reader
        names = read_names(records / "identities.tsv", num_identities=data.num_identities)
        grown = growing.carry_out(
            trained,
            reader,
            network=engine.to_evaluate,
            names=lambda: names,  # noqa: B023  # asked at once
            stop=StopRequest(),
            say=told.append,
        )
        found[head] = current(trained) | {
            "grown": asdict(grown) | {"folder": str(grown.folder)},
            "lines": [*told, *grown.lines(config.growth)] if config.growth else [],
            "optimizer": trained.backbone_optimizer.state_dict()["state"],
            "stays": first_forward(trained, reader, world, [name for name in NEW if name in OLD]),
            "joins": first_forward(trained, reader, world, [name for name in NEW if name not in OLD]),
        }
    return found


def current(trained: Any) -> dict[str, Any]:
    """This rank's centers and their momentum as plain numbers."""
    centers = trained.head.centers.detach().clone()
    if trained.head.rows is not None:
        momentum = trained.head.rows.momentum(0, len(centers))
    else:
        momentum = trained.center_optimizer.state[trained.head.stored_centers].get("momentum_buffer")
        momentum = torch.zeros_like(centers) if momentum is None else momentum.clone()
    return {"start": trained.head.class_shard.start, "centers": centers, "momentum": momentum}


def images_of(reader: Any, positions: list[int]) -> torch.Tensor:
    """[n, 3, S, S] in [-1, 1], decoded plainly."""
    from data_pipeline.decode_image import decode_image

    pictures = [torch.from_numpy(decode_image(reader[place].jpeg, SIZE).copy()) for place in positions]
    return torch.stack(pictures).permute(0, 3, 1, 2).float().sub(127.5).div(127.5)


def first_forward(trained: Any, reader: Any, world: World, names: list[str]) -> float:
    """Mean angle to their own centers, as the head sees it, of all images of ``names``, split over the ranks."""
    wanted = [NEW.index(name) for name in names]
    positions = [place for place in range(len(reader)) if reader[place].identity in wanted]
    mine = positions[world.rank :: world.world_size]
    trained.backbone.eval()
    with torch.no_grad():
        embeddings = trained.backbone(images_of(reader, mine))
        trained.head(embeddings, torch.tensor([reader[place].identity for place in mine]))
    trained.backbone.train()
    stats: HeadStats | None = trained.head.stats
    assert stats is not None
    return stats.theta_positive
