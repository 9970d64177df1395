"""A step of the head over classes, batch and ranks: which sizes, and each of them in processes of its own."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from trainer.available_memory import available_bytes
from trainer.bench.scaling_problem import (
    BATCH,
    CLASSES,
    WORLD,
    LeftOut,
    ScalingEffort,
    ScalingPoint,
    ScalingRow,
    describe,
)
from trainer.errors import ConfigError, PeerFailedError
from trainer.plan.local_ranks import local_ranks, outcome

DEADLINE_SECONDS = 900.0  # of one size
GIB = 1 << 30
_OF_A_RANK = 400 << 20  # libraries
_PER_SAMPLE = 4096 * 4 * 8  # of the buffers of one tile


def scaling_points(
    axes: Sequence[str],
    *,
    classes: Sequence[int],
    batches: Sequence[int],
    worlds: Sequence[int],
    embedding_dim: int,
    fixed_classes: int,
    fixed_batch: int,
    threads: int,
) -> Iterator[ScalingPoint]:
    """Classes and batch on one rank of ``threads`` threads; ranks of one thread each share the global batch."""
    if CLASSES in axes:
        yield from (ScalingPoint(CLASSES, each, embedding_dim, fixed_batch, 1, threads) for each in classes)
    if BATCH in axes:
        yield from (ScalingPoint(BATCH, fixed_classes, embedding_dim, each, 1, threads) for each in batches)
    if WORLD in axes:
        for ranks in worlds:
            batch = max(1, round(fixed_batch / ranks))
            yield ScalingPoint(WORLD, fixed_classes, embedding_dim, batch, ranks, 1)


def bench_scaling(points: Sequence[ScalingPoint], effort: ScalingEffort) -> Iterator[ScalingRow | LeftOut]:
    """Measure one after the other; what does not fit in memory is left out. Raises PeerFailedError where one fails."""
    for point in points:
        available, needed = available_bytes(), needed_bytes(point)
        if available is not None and needed > available:
            yield LeftOut(point, f"it needs about {needed / GIB:.1f} GiB, {available / GIB:.1f} GiB are free")
            continue
        asked = json.dumps({"point": asdict(point), "effort": asdict(effort)})
        with local_ranks(["trainer.bench.scaling_probe", asked], point.world_size) as processes:
            try:
                printed = outcome(processes, deadline_seconds=DEADLINE_SECONDS)
            except ConfigError as error:
                raise ConfigError(f"{describe(point)}: {error}") from None
            except PeerFailedError as error:
                raise PeerFailedError(f"{describe(point)}: {error}", error.code) from None
        yield ScalingRow.from_dict(json.loads(printed.splitlines()[-1]))


def needed_bytes(point: ScalingPoint) -> int:
    """Of all ranks, in the screened phase: centers, half of them again for codes and momentum, and buffers."""
    centers = 4 * point.num_classes * point.embedding_dim
    return centers * 3 // 2 + point.world_size * (_OF_A_RANK + point.global_batch * _PER_SAMPLE)
