"""One step of a head against the bare float32 logits product, both timed in turn.

Shape letters: R classes of one rank, N global batch, D embedding size.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist

from partial_fc import HeadStats
from trainer.bench.bare_product import BareProduct
from trainer.bench.batches import draw_batches
from trainer.bench.contestants import build
from trainer.bench.geometry import Geometry
from trainer.bench.memory_need import lack_of_memory
from trainer.bench.peak_memory import peak_bytes, reset_peak
from trainer.bench.problem import ALL_ACTIVE, PLAIN, Effort, Problem, Row, Skipped
from trainer.bench.summary import summarise
from trainer.world import World

FEW_CLASSES, FEW_SAMPLES = 4096, 8  # enough for a method to come by all of its code


def bench_head(
    problems: Iterable[Problem], effort: Effort, *, world: World, now: Callable[[], float]
) -> Iterator[Row | Skipped]:
    """Measure each problem alone, one after the other; every rank of ``world`` runs it and gets the same rows.

    A step is forward, backward, update with momentum 0.9 and decay 5e-4, and zero_grad, on embeddings never seen
    before. Each repetition times the bare product of a rank's centers with the global batch, then a step; the ratio is
    taken pair by pair.
    """
    loaded: set[str] = set()
    for problem in problems:
        if problem.method == PLAIN and world.world_size > 1:
            yield Skipped(problem, "plain PyTorch runs in one process only")
        elif reason := lack_of_memory(problem, world):
            yield Skipped(problem, reason)
        else:
            if problem.method not in loaded:  # libraries and compiled code are not the first problem's memory
                loaded.add(problem.method)
                few = replace(problem, num_classes=FEW_CLASSES * world.world_size, batch=FEW_SAMPLES)
                _measure(few, replace(effort, repetitions=1, warmup=4), world, now)
            yield _measure(problem, effort, world, now)


def _measure(problem: Problem, effort: Effort, world: World, now: Callable[[], float]) -> Row:
    gc.collect()
    device = world.device
    reset_peak(device)
    before = peak_bytes(device)
    geometry = Geometry(problem.embedding_dim, problem.spread, effort.seed, all_active=problem.method == ALL_ACTIVE)
    method = build(problem, geometry, world, effort.seed)
    steps = effort.warmup + effort.repetitions
    batches = draw_batches(steps, problem, method.centers, geometry, world, effort.seed)
    # What a GPU's memory holds is counted there alone; on the CPU it is all the same memory.
    on_device = method.centers.device.type == device.type
    known = before + (method.centers.nbytes if on_device else 0) + sum(batch.nbytes for batch in batches)
    reset_peak(device)
    for batch in batches[: effort.warmup - 1]:
        method.step(batch)
    extra_ever = peak_bytes(device) - known
    product = BareProduct(method.centers, problem.batch * world.world_size, device)
    product()
    counted = reset_peak(device)
    method.step(batches[effort.warmup - 1])  # untimed: the reset took away pages that malloc had kept
    times: list[float] = []
    stats: list[HeadStats] = []
    for batch in batches[effort.warmup :]:
        times.append(_timed(product, world, now))
        times.append(_timed(partial(method.step, batch), world, now))
        if (last := method.stats()) is not None:
            stats.append(last)
    extra = peak_bytes(device) - known - product.nbytes
    # A step takes as long as on the slowest rank, and memory must suffice for the largest.
    *times, largest, largest_ever = _largest([*times, extra, max(extra, extra_ever)], world)
    return summarise(
        problem,
        effort,
        world_size=world.world_size,
        device=device_name(device),
        product_seconds=times[::2],
        step_seconds=times[1::2],
        stats=stats,
        centers_bytes=method.centers.nbytes,
        extra_bytes=(int(largest), int(largest_ever)) if counted else None,
    )


def _timed(action: Callable[[], None], world: World, now: Callable[[], float]) -> float:
    if world.world_size > 1:
        dist.barrier()  # else this rank's product would run beside another's step
    _settle(world)
    began = now()
    action()
    _settle(world)
    return now() - began


def _settle(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def device_name(device: torch.device) -> str:
    """As the table calls it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _largest(values: list[float], world: World) -> list[float]:
    """Of each value the largest over ranks."""
    if world.world_size == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=world.device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    largest: list[float] = tensor.tolist()
    return largest
