"""What one rank measures of one size: ``python -m trainer.bench.scaling_probe JSON``, by :mod:`scaling_bench`.

In processes of their own, so that no size inherits another's memory. Rank 0 prints a row as JSON.

Shape letters: R rows of one rank, N global batch, B batch of one rank, D embedding size.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from partial_fc import CenterSGD, PartialFC, SFace
from partial_fc.collective_use import CollectiveUse
from trainer.agreement import largest
from trainer.bench.batches import Batch, draw_batches
from trainer.bench.contestants import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY
from trainer.bench.geometry import Geometry
from trainer.bench.peak_memory import peak_bytes, reset_peak
from trainer.bench.problem import SFACE, Problem
from trainer.bench.scaling_problem import ScalingEffort, ScalingPoint, ScalingRow
from trainer.bench.seconds import Seconds, both_clocks
from trainer.bench.summary import modes, quartiles
from trainer.world import World, joined_world

FEW_CLASSES, FEW_SAMPLES = 4096, 8  # enough for the head to come by all of its code


class ExchangeClock(CollectiveUse):
    """Also counts the processor's time inside collectives. spent: by both clocks."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = Seconds()

    @contextmanager
    def timed(self, operation: str, nbytes: int, *, on_device: bool) -> Iterator[None]:
        """Count the block as one ``operation``."""
        began = both_clocks()
        with super().timed(operation, nbytes, on_device=on_device):
            yield
        self.spent += both_clocks() - began


class ScaledHead:
    """The head of one size in the steady phase of a training."""

    def __init__(self, point: ScalingPoint, effort: ScalingEffort, world: World) -> None:
        self.point, self.effort, self.world = point, effort, world
        problem = Problem(SFACE, point.num_classes, point.embedding_dim, point.batch, effort.spread, effort.tolerance)
        geometry = Geometry(point.embedding_dim, effort.spread, effort.seed)
        self.head = PartialFC(
            point.num_classes, point.embedding_dim, SFace(), tolerance=effort.tolerance, seed=effort.seed
        )
        self.exchange = self.head.collectives.use = ExchangeClock()
        centers = self.head.centers.detach()
        geometry.fill_centers(centers, self.head.class_shard.start)
        self.head.load_centers(centers)  # onto themselves: tells the head that they changed
        self._optimizer = CenterSGD(self.head, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        steps = effort.warmup + effort.repetitions
        self.batches = draw_batches(steps, problem, centers, geometry, world, effort.seed)

    def step(self, batch: Batch) -> None:
        """Forward, backward, update."""
        self.head(batch.embeddings.detach().requires_grad_(), batch.identities).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()

    def bare_exchange(self) -> float:
        """Both collectives of a step alone, seconds by the wall clock."""
        collectives, batch = self.head.collectives, self.batches[0]
        sizes = [self.point.batch] * self.world.world_size
        _meet(self.world)
        began = time.perf_counter()
        gathered, _ = collectives.gather_batch(batch.embeddings, batch.identities, sizes)
        collectives.scatter_sum(gathered, sizes)
        return time.perf_counter() - began


def measure(point: ScalingPoint, effort: ScalingEffort, world: World) -> ScalingRow:
    """Every rank calls it and gets the same row."""
    torch.set_num_threads(point.threads)
    few = ScalingPoint(
        point.axis, FEW_CLASSES * world.world_size, point.embedding_dim, FEW_SAMPLES, world.world_size, 1
    )
    small = ScaledHead(few, effort, world)  # libraries and compiled code are not the head's memory
    small.step(small.batches[0])
    del small
    gc.collect()
    reset_peak()
    before = peak_bytes()
    scaled = ScaledHead(point, effort, world)
    known = before + sum(batch.nbytes for batch in scaled.batches)
    for batch in scaled.batches[: effort.warmup]:
        scaled.step(batch)
    steps: list[Seconds] = []
    exchanges: list[Seconds] = []
    stats = []
    for batch in scaled.batches[effort.warmup :]:
        _meet(world)
        scaled.exchange.spent = Seconds()
        began = both_clocks()
        scaled.step(batch)
        steps.append(both_clocks() - began)
        exchanges.append(scaled.exchange.spent)
        assert scaled.head.stats is not None, "a step was taken"
        stats.append(scaled.head.stats)
    memory = peak_bytes() - known
    bare = statistics.median(scaled.bare_exchange() for _ in steps)
    compute = statistics.median(step.cpu - within.cpu for step, within in zip(steps, exchanges, strict=True))
    inside = [statistics.median(values) for values in zip(*((each.cpu, each.wall) for each in exchanges), strict=True)]
    found = [*quartiles([step.wall for step in steps]), compute, *inside, bare, float(memory)]
    wall_q1, wall, wall_q3, compute, exchange, waited, bare, most = (largest(world, value) for value in found)
    return ScalingRow(
        point, effort, wall, wall_q1, wall_q3, compute, exchange, waited, bare,
        bytes_moved=stats[-1].bytes_moved,
        memory=int(most),
        mode=modes([each.mode for each in stats]) or "",
        active_pairs=statistics.median(each.active_pairs for each in stats) / point.global_batch,
        cut=statistics.median(each.cut for each in stats),
    )  # fmt: skip


def _meet(world: World) -> None:
    if world.world_size > 1:
        dist.barrier()


def main() -> None:
    """One size, from the arguments."""
    asked = json.loads(sys.argv[1])
    point, effort = ScalingPoint(**asked["point"]), ScalingEffort(**asked["effort"])
    with joined_world("cpu", expected_size=point.world_size, timeout_seconds=300.0) as world:
        row = measure(point, effort, world)
        if world.is_first:
            print(json.dumps(row.to_dict()))


if __name__ == "__main__":
    main()
