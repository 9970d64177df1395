"""Loaders in turn on the same records: images per second, and ratios within a round."""

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from trainer.bench.data_contestants import Contestants
from trainer.bench.data_problem import BARE, BARE_FLIP, FLIPPED, PIL, DataEffort, ThroughputRow
from trainer.bench.summary import quartiles


def bench_data(
    contestants: Contestants,
    methods: Sequence[str],
    effort: DataEffort,
    *,
    now: Callable[[], float],
    after_round: Callable[[int], None] = lambda number: None,
) -> list[ThroughputRow]:
    """Each round gives every method a turn: some batches untimed, then ``effort.batches`` timed.

    The untimed ones are what a method has decoded ahead while the others had their turns, and what it needs to get
    into its pace. Every second round goes backwards, so that a machine that grows slower favours nobody.
    """
    running = {method: contestants.build(method) for method in methods}
    try:
        for method in methods:  # the first batches start threads, processes and pipelines
            _take(running[method], ahead(effort) + 2, effort)
        rates: dict[str, list[float]] = {method: [] for method in methods}
        for number in range(effort.repetitions):
            for method in methods if number % 2 == 0 else reversed(methods):
                _take(running[method], ahead(effort), effort)
                contestants.settle()
                began = now()
                _take(running[method], effort.batches, effort)
                contestants.settle()
                rates[method].append(effort.batches * effort.batch_size / (now() - began))
            after_round(number + 1)
    finally:
        running.clear()
        gc.collect()  # ends threads and worker processes
    return [_row(method, rates) for method in methods]


def ahead(effort: DataEffort) -> int:
    """Batches that a method may have finished before its turn: the DataLoader keeps two for each worker."""
    return max(2 * effort.workers, 2 * effort.prefetch) + 2


def batches_needed(effort: DataEffort) -> int:
    """Batches that each method hands out or has in work, at most."""
    return 2 + 2 * ahead(effort) + effort.repetitions * (ahead(effort) + effort.batches)


def _take(batches: Iterator[torch.Tensor], count: int, effort: DataEffort) -> None:
    shape = (effort.batch_size, 3, effort.image_size, effort.image_size)
    for _ in range(count):
        images = next(batches)
        if tuple(images.shape) != shape or images.dtype != torch.float32:
            raise RuntimeError(f"a batch of {tuple(images.shape)} {images.dtype}: {shape} float32 was expected")


def _row(method: str, rates: dict[str, list[float]]) -> ThroughputRow:
    low, middle, high = quartiles(rates[method])
    bare = _ratios(rates, method, BARE_FLIP if method in FLIPPED else BARE)
    pil = _ratios(rates, method, PIL)
    bare_low, bare_middle, bare_high = quartiles(bare) if bare else (None, None, None)
    return ThroughputRow(
        method, middle, low, high, bare_middle, bare_low, bare_high, statistics.median(pil) if pil else None
    )


def _ratios(rates: dict[str, list[float]], method: str, other: str) -> list[float]:
    if other not in rates:
        return []
    return [mine / its for mine, its in zip(rates[method], rates[other], strict=True)]
