"""What one rank measures of its GPU while the others of its machine do: ``python -m trainer.plan.probe_gpu``.

Started by :mod:`trainer.plan.gpu_calibration`, one rank a GPU. Rank 0 prints one JSON object: ``Rates``, and the
device's memory. What one GPU cannot show (links) is left to the data sheet, and decoding where DALI is missing.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist

import trainer.training  # noqa: F401  # what training imports is in its memory
from data_pipeline import make_loader
from trainer.agreement import largest
from trainer.backbones import BackboneConfig, build_backbone
from trainer.bench.bare_product import BareProduct
from trainer.bench.peak_memory import resident_bytes
from trainer.bench.problem import ALL_ACTIVE, COSFACE
from trainer.bench.step_records import write_records
from trainer.plan import probe_machine
from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.clock import Clock
from trainer.plan.devices import Device, device_named
from trainer.plan.probe_backbones import IMAGE_SIZE, timed_passes
from trainer.plan.probe_head import DIM, head_costs, times_product
from trainer.plan.rank_folder import rank_folder
from trainer.plan.rates import FAMILIES, PASSES_OVER_WEIGHTS, Rates, family, rates_of
from trainer.world import World, joined_world

BACKBONES = {"mobilefacenet": 256, "iresnet50": 128, "vit_s": 128}  # images of a pass
WARM_PASSES, TIMED_PASSES = 4, 6
ROWS, SAMPLES = (200_000, 1_000_000), (64, 256)  # of a screened step
DENSE_ROWS, DENSE_SAMPLES = 400_000, 256
SIDE = 8192  # of a square product
COPY_BYTES, REDUCED = 1 << 30, 256 << 20
DECODED = 20  # batches


def measure(world: World, folder: Path, sheet: Device) -> Rates:
    """Every rank calls it; each figure is of the slowest one. sheet: for what cannot be measured here."""
    assumed = rates_of(sheet)
    clock = Clock(world, now_on(world.device))
    process = used_by_libraries(world.device)
    bare = BareProduct(torch.randn(DENSE_ROWS, DIM, device=world.device), DENSE_SAMPLES, world.device)
    product = 2.0 * DENSE_ROWS * DIM * DENSE_SAMPLES / clock.seconds(bare)
    screen = int8_product(clock)
    flops16 = square_product(clock, torch.bfloat16)
    with tensor_float32():
        flops = square_product(clock, torch.float32)
    bandwidth = copied(clock)
    link, latency = exchange(clock, assumed)
    fixed, row, sample, pair = head_costs(clock, ROWS, SAMPLES)
    rates = replace(
        assumed,
        product=product,
        screen=screen,
        pair_seconds=max(0.0, pair - 2.0 * DIM / screen),
        row_seconds=row / DIM,
        sample_seconds=sample,
        head_seconds=fixed,
        dense=times_product(clock, ALL_ACTIVE, product, DENSE_ROWS, DENSE_SAMPLES),
        softmax=times_product(clock, COSFACE, product, DENSE_ROWS, DENSE_SAMPLES),
        flops=flops,
        flops16=flops16,
        grouped=assumed.grouped / assumed.product * product,
        bandwidth=bandwidth,
        link=link,
        network=assumed.network,
        latency=latency,
        decode=decoding(world, folder) or assumed.decode,
        disk=probe_machine.disk(clock, folder),
        update=PASSES_OVER_WEIGHTS / bandwidth,
        process=process,
        host_process=float(resident_bytes()),
    )
    return with_backbones(clock, rates)


def now_on(device: torch.device) -> Callable[[], float]:
    """Seconds, when all that was asked of ``device`` is done."""

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now


def used_by_libraries(device: torch.device) -> float:
    """Bytes of the device that are taken before any tensor is: by CUDA, cuBLAS, and whoever else is there."""
    torch.mm(*(torch.ones(64, 64, device=device) for _ in range(2)))
    free, total = torch.cuda.mem_get_info(device)
    return float(total - free - torch.cuda.memory_reserved(device))


def int8_product(clock: Clock) -> float:
    """Operations/s."""
    device = clock.world.device
    centers = torch.ones(DENSE_ROWS, DIM, dtype=torch.int8, device=device)
    samples = torch.ones(DENSE_SAMPLES, DIM, dtype=torch.int8, device=device).T
    return 2.0 * DENSE_ROWS * DIM * DENSE_SAMPLES / clock.seconds(lambda: torch._int_mm(centers, samples))


def square_product(clock: Clock, dtype: torch.dtype) -> float:
    """Operations/s of a product that nothing but arithmetic limits."""
    left = torch.randn(SIDE, SIDE, device=clock.world.device).to(dtype)
    return 2.0 * SIDE**3 / clock.seconds(lambda: torch.mm(left, left))


def copied(clock: Clock) -> float:
    """Bytes/s read and written."""
    source = torch.ones(COPY_BYTES // 4, device=clock.world.device)
    target = torch.empty_like(source)
    return 2.0 * COPY_BYTES / clock.seconds(lambda: target.copy_(source))


def exchange(clock: Clock, assumed: Rates) -> tuple[float, float]:
    """Bytes/s received in an all-reduce, and the time of one of few bytes; of the data sheet with one GPU alone."""
    world = clock.world
    if world.world_size == 1:
        return assumed.link, assumed.latency
    few, much = torch.ones(8, device=world.device), torch.ones(REDUCED // 4, device=world.device)
    latency = clock.seconds(lambda: dist.all_reduce(few), 20)
    share = 2.0 * (world.world_size - 1) / world.world_size
    return share * REDUCED / clock.seconds(lambda: dist.all_reduce(much)), latency


def decoding(world: World, folder: Path) -> float | None:
    """Images/s of DALI on the GPU with one thread; None without DALI."""
    if importlib.util.find_spec("nvidia.dali") is None:
        return None
    path = folder / f"decode_{world.rank}.rec"
    write_records(path, num_identities=4000, image_size=IMAGE_SIZE, seed=0)
    loader = make_loader(
        [path], batch_size=128, rank=0, world_size=1, seed=0, decoder="dali", device=str(world.device), num_threads=1
    )
    batches = iter(loader)
    for _ in range(8):
        next(batches)
    torch.cuda.synchronize(world.device)
    began = time.perf_counter()
    for _ in range(DECODED):
        next(batches)
    torch.cuda.synchronize(world.device)
    return 128 * DECODED / largest(world, time.perf_counter() - began)


def with_backbones(clock: Clock, rates: Rates) -> Rates:
    """``rates`` with forward and backward, 32 and 16 bits, over what operations and shapes let expect, by family; and
    the memory that activations take over the computed one.
    """
    forwards, backwards, activations = (
        {ending: dict.fromkeys(FAMILIES, 1.0) for ending in ("", "16")} for _ in range(3)
    )
    for name, batch in BACKBONES.items():
        for precision, ending, flops in (("float32", "", rates.flops), ("bfloat16", "16", rates.flops16)):
            config = BackboneConfig.model_validate({"name": name, "precision": precision})
            cost = backbone_cost(config, IMAGE_SIZE)
            computed = [batch * each for each in cost.seconds(flops, rates.grouped, rates.bandwidth)]
            forward, backward, peak = passes(clock, config, batch)
            forwards[ending][family(name)] = forward / computed[0]
            backwards[ending][family(name)] = backward / computed[1]
            activations[ending][family(name)] = max(1.0, peak / (cost.peak * batch / cost.images))
    return replace(
        rates,
        activations=activations[""],
        activations16=activations["16"],
        forward=forwards[""],
        backward=backwards[""],
        forward16=forwards["16"],
        backward16=backwards["16"],
    )


def passes(clock: Clock, config: BackboneConfig, batch: int) -> tuple[float, float, float]:
    """Seconds of forward and backward as in training, of the slowest rank; bytes beyond weights and gradients."""
    device = clock.world.device
    torch.cuda.empty_cache()
    network = build_backbone(config, image_size=IMAGE_SIZE).to(device)
    images = torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE, device=device)
    held = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    forward, backward = timed_passes(clock, network, images, warm=WARM_PASSES, timed=TIMED_PASSES)
    gradients = 4 * sum(each.numel() for each in network.parameters())
    peak = torch.cuda.max_memory_reserved(device) - held - gradients
    return forward, backward, float(peak)


@contextmanager
def tensor_float32() -> Iterator[None]:
    """Products in TensorFloat-32, as convolutions of a float32 backbone are."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    with joined_world("cuda", expected_size=None, timeout_seconds=120.0) as world:
        with rank_folder(arguments.folder) as folder:
            rates = measure(world, folder, device_named(arguments.sheet))
        if world.is_first:
            memory = torch.cuda.get_device_properties(world.device).total_memory
            print(json.dumps({"memory": memory, "rates": asdict(rates)}), flush=True)


if __name__ == "__main__":
    main()
