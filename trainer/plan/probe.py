"""What one rank measures of its machine while the others of it measure the same: ``python -m trainer.plan.probe``.

Started by :mod:`trainer.plan.calibrate`, as many at once as a layout has ranks. Rank 0 prints one JSON object.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

import trainer.training  # noqa: F401  # what training imports is in its memory
from data_pipeline import make_loader
from partial_fc.collectives import ID_BYTES
from trainer.agreement import largest
from trainer.backbones import BackboneConfig, build_backbone
from trainer.bench.bare_product import BareProduct
from trainer.bench.batches import draw_batches
from trainer.bench.contestants import build
from trainer.bench.geometry import Geometry
from trainer.bench.peak_memory import peak_bytes, reset_peak, resident_bytes
from trainer.bench.problem import ALL_ACTIVE, COSFACE, SFACE, Problem
from trainer.bench.step_records import write_records
from trainer.memory import keep_freed_memory
from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.rates import FAMILIES, Rates, family
from trainer.world import World, joined_world

DIM = 512
FEW_ROWS, MANY_ROWS, FEW_SAMPLES, MANY_SAMPLES = 6_000, 30_000, 32, 128  # of a rank
BACKBONES = {"mobilefacenet": 8, "iresnet18": 4, "vit_t": 2}
IMAGE_SIZE = 112
WARM_PASSES, TIMED_PASSES = 2, 3
COPY_BYTES = 96 << 20
WRITE_BYTES = 96 << 20
REDUCED = 24 << 20


def measure(world: World, folder: Path, threads: int, now: Callable[[], float]) -> Rates:
    """Every rank calls it; each figure is of the slowest one. now: seconds."""
    keep_freed_memory()  # as in training
    torch.set_num_threads(threads)
    clock = Clock(world, now)
    decode, process = _decode(world, folder)
    product, screen = _product(clock), _int8_product(clock)
    bandwidth = _bandwidth(clock)
    link, latency = _exchange(clock)
    fixed, row, sample, pair = _head_costs(clock)
    grouped = product * 0.2
    forward, backward, activations = _backbones(clock, product, grouped, bandwidth)
    return Rates(
        product=product,
        screen=screen,
        pair_seconds=max(0.0, pair - 2.0 * DIM / screen),
        row_seconds=row / DIM,
        sample_seconds=sample,
        head_seconds=fixed,
        dense=_times_product(clock, ALL_ACTIVE, product),
        softmax=_times_product(clock, COSFACE, product),
        flops=product,
        flops16=product,
        grouped=grouped,
        bandwidth=bandwidth,
        link=link,
        network=link,
        latency=latency,
        decode=decode,
        disk=_disk(clock, folder),
        process=process,
        host_process=process,
        overlap=False,
        forward=forward,
        backward=backward,
        activations=activations,
    )


@dataclass(frozen=True)
class Clock:
    """Times what all ranks of ``world`` do at once."""

    world: World
    now: Callable[[], float]

    def seconds(self, action: Callable[[], object], times: int = 5) -> float:
        """Median of ``times`` calls after one, each of the slowest rank."""
        action()
        found = []
        for _ in range(times):
            self.meet()
            began = self.now()
            action()
            found.append(largest(self.world, self.now() - began))
        return statistics.median(found)

    def meet(self) -> None:
        """All ranks begin together."""
        if self.world.world_size > 1:
            dist.barrier()


def _product(clock: Clock) -> float:
    product = BareProduct(torch.randn(10_000, DIM), 256)
    return 2.0 * 10_000 * DIM * 256 / clock.seconds(product)


def _int8_product(clock: Clock) -> float:
    centers = torch.ones(10_000, DIM, dtype=torch.int8)
    samples = torch.ones(256, DIM, dtype=torch.int8).T
    out = torch.empty(2048, 256, dtype=torch.int32)

    def run() -> None:
        for block in torch.split(centers, 2048):
            torch._int_mm(block, samples, out=out[: len(block)])

    return 2.0 * 10_000 * DIM * 256 / clock.seconds(run)


def _bandwidth(clock: Clock) -> float:
    source, target = torch.ones(COPY_BYTES // 4), torch.ones(COPY_BYTES // 4)
    return 2.0 * COPY_BYTES / clock.seconds(lambda: target.copy_(source))


def _exchange(clock: Clock) -> tuple[float, float]:
    """Bytes/s received in an all-reduce, and the time of a collective of few bytes."""
    world = clock.world
    if world.world_size == 1:
        return 1e9, 0.0  # nothing travels
    few, much = torch.ones(ID_BYTES), torch.ones(REDUCED // 4)
    latency = clock.seconds(lambda: dist.all_reduce(few), 20)
    share = 2.0 * (world.world_size - 1) / world.world_size
    return share * REDUCED / clock.seconds(lambda: dist.all_reduce(much)), latency


def _head_costs(clock: Clock) -> tuple[float, float, float, float]:
    """(fixed, of a row, of a sample, of a pair) of a screened step, from four sizes of it."""
    ranks = clock.world.world_size
    times = {
        (rows, batch): _head_step(clock, SFACE, rows, batch)
        for rows in (FEW_ROWS, MANY_ROWS)
        for batch in (FEW_SAMPLES, MANY_SAMPLES)
    }
    row_span, sample_span = MANY_ROWS - FEW_ROWS, (MANY_SAMPLES - FEW_SAMPLES) * ranks
    least = times[FEW_ROWS, FEW_SAMPLES]
    by_rows = times[MANY_ROWS, FEW_SAMPLES] - least
    by_samples = times[FEW_ROWS, MANY_SAMPLES] - least
    both = times[MANY_ROWS, MANY_SAMPLES] - least - by_rows - by_samples
    pair = max(0.0, both / (row_span * sample_span))
    row = max(0.0, by_rows / row_span - pair * FEW_SAMPLES * ranks)
    sample = max(0.0, by_samples / sample_span - pair * FEW_ROWS)
    rest = row * FEW_ROWS + sample * FEW_SAMPLES * ranks + pair * FEW_ROWS * FEW_SAMPLES * ranks
    return max(0.0, least - rest), row, sample, pair


def _times_product(clock: Clock, method: str, product: float) -> float:
    samples = 64 * clock.world.world_size
    return _head_step(clock, method, 8_000, 64) / (2.0 * 8_000 * DIM * samples / product)


def _head_step(clock: Clock, method: str, rows: int, batch: int) -> float:
    world = clock.world
    problem = Problem(method, rows * world.world_size, DIM, batch, 0.06, 1e-3)
    geometry = Geometry(DIM, problem.spread, 0, all_active=method == ALL_ACTIVE)
    contestant = build(problem, geometry, world, 0)
    batches = iter(draw_batches(16, problem, contestant.centers, geometry, world, 0))
    for _ in range(8 if method == SFACE else 3):
        contestant.step(next(batches))
    return clock.seconds(lambda: contestant.step(next(batches)), 5)


def _backbones(
    clock: Clock, product: float, grouped: float, bandwidth: float
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Forward, backward and resident memory over what is computed from operations and shapes."""
    forward, backward, memory = (dict.fromkeys(FAMILIES, 1.0) for _ in range(3))
    for name, batch in BACKBONES.items():
        config = BackboneConfig.model_validate({"name": name})
        cost = backbone_cost(config, IMAGE_SIZE)
        computed = [batch * each for each in cost.seconds(product, grouped, bandwidth)]
        network = build_backbone(config, image_size=IMAGE_SIZE)
        counted, before = reset_peak(), resident_bytes()
        images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE)
        alone, after = _passes(clock, network, images)
        kind = family(name)
        forward[kind], backward[kind] = alone / computed[0], after / computed[1]
        if counted:
            # The first passes have left their memory with malloc: what came on top is not all that there is.
            left = max(0, peak_bytes() - before - 4 * cost.parameters)
            factor = left / (cost.peak * batch / cost.images)
            memory[kind] = factor if factor > 1.0 else max(memory.values())  # as of the one before
    return forward, backward, memory


def _passes(clock: Clock, network: torch.nn.Module, images: torch.Tensor) -> tuple[float, float]:
    """Seconds of forward and backward as in training, one after the other; medians of the slowest rank."""
    found: list[tuple[float, float]] = []
    for _ in range(WARM_PASSES + TIMED_PASSES):
        clock.meet()
        began = clock.now()
        embeddings = network(images)
        scored = clock.now()
        torch.autograd.backward(embeddings.sum())
        ended = clock.now()
        del embeddings  # and its graph
        network.zero_grad(set_to_none=True)
        found.append((largest(clock.world, scored - began), largest(clock.world, ended - scored)))
    forward, backward = zip(*found[WARM_PASSES:], strict=True)
    return statistics.median(forward), statistics.median(backward)


def _decode(world: World, folder: Path) -> tuple[float, float]:
    """Images/s of one thread, and this process's memory with a decoder in it."""
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
    return 32 * count / largest(world, time.perf_counter() - began), float(resident_bytes())


def _disk(clock: Clock, folder: Path) -> float:
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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    threads = arguments.threads
    now = (lambda: time.process_time() / threads) if arguments.processor_time else time.perf_counter
    with joined_world("cpu", expected_size=None, timeout_seconds=120.0) as world:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rates = measure(world, Path(folder), arguments.threads, now)
        if world.is_first:
            print(json.dumps(rates.to_dict()), flush=True)


if __name__ == "__main__":
    main()
