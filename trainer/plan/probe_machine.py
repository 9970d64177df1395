"""What this machine does of arithmetic, copies, exchanges, decoding and writing."""

import os
import time
from pathlib import Path

import torch
import torch.distributed as dist

from data_pipeline import make_loader
from partial_fc.collectives import ID_BYTES
from trainer.agreement import largest
from trainer.bench.bare_product import BareProduct
from trainer.bench.peak_memory import file_bytes, resident_bytes
from trainer.bench.step_records import write_records
from trainer.engine.deepspeed_library import import_deepspeed
from trainer.errors import ConfigError
from trainer.plan.clock import Clock
from trainer.world import World, prepare_deepspeed

DIM = 512
IMAGE_SIZE = 112
COPY_BYTES = 96 << 20
WRITE_BYTES = 96 << 20
REDUCED = 24 << 20


def product(clock: Clock) -> float:
    """Operations/s of the head's float32 product."""
    bare = BareProduct(torch.randn(10_000, DIM), 256)
    return 2.0 * 10_000 * DIM * 256 / clock.seconds(bare)


def int8_product(clock: Clock) -> float:
    """Operations/s of the screening product."""
    centers = torch.ones(10_000, DIM, dtype=torch.int8)
    samples = torch.ones(256, DIM, dtype=torch.int8).T
    out = torch.empty(2048, 256, dtype=torch.int32)

    def run() -> None:
        for block in torch.split(centers, 2048):
            torch._int_mm(block, samples, out=out[: len(block)])

    return 2.0 * 10_000 * DIM * 256 / clock.seconds(run)


def bandwidth(clock: Clock) -> float:
    """Bytes/s read and written."""
    source, target = torch.ones(COPY_BYTES // 4), torch.ones(COPY_BYTES // 4)
    return 2.0 * COPY_BYTES / clock.seconds(lambda: target.copy_(source))


def exchange(clock: Clock) -> tuple[float, float]:
    """Bytes/s received in an all-reduce, and the time of a collective of few bytes."""
    world = clock.world
    if world.world_size == 1:
        return 1e9, 0.0  # nothing travels
    few, much = torch.ones(ID_BYTES), torch.ones(REDUCED // 4)
    latency = clock.seconds(lambda: dist.all_reduce(few), 20)
    share = 2.0 * (world.world_size - 1) / world.world_size
    return share * REDUCED / clock.seconds(lambda: dist.all_reduce(much)), latency


def decoding(world: World, folder: Path) -> tuple[float, float]:
    """Images/s of one thread, and this process's memory with a decoder in it, without pages of files."""
    path = folder / f"decode_{world.rank}.rec"
    images = write_records(path, num_identities=1000, image_size=IMAGE_SIZE, seed=0)
    loader = make_loader([path], batch_size=32, rank=0, world_size=1, seed=0, decoder="dali", device="cpu")
    batches = iter(loader)
    for _ in range(4):
        next(batches)
    count = images // 32 - 8
    began = time.perf_counter()
    for _ in range(count):
        next(batches)
    return 32 * count / largest(world, time.perf_counter() - began), float(resident_bytes() - file_bytes())


def deepspeed_libraries() -> float:
    """Bytes that DeepSpeed adds to this process, 0 where it is not installed; not imported before."""
    before = resident_bytes()
    prepare_deepspeed(World(0, 1, 0, torch.device("cpu")))
    try:
        import_deepspeed()
    except ConfigError:
        return 0.0
    return float(resident_bytes() - before)


def disk(clock: Clock, folder: Path) -> float:
    """Bytes/s of all ranks together, until it is on the disk."""
    world, block = clock.world, os.urandom(1 << 20)
    path = folder / f"written_{world.rank}"

    def write() -> None:
        with path.open("wb") as file:
            for _ in range(WRITE_BYTES >> 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())

    return WRITE_BYTES * world.world_size / Clock(world, time.perf_counter).seconds(write, 1)
