"""Checkpoints of a head and a backbone while the head trains: synchronous and asynchronous ones in turn."""

import itertools
import shutil
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from partial_fc import CenterSGD, PartialFC
from trainer.agreement import any_rank_each
from trainer.backbones import BackboneConfig, build_backbone
from trainer.bench.batches import Batch, draw_batches
from trainer.bench.checkpoint_problem import CheckpointEffort, CheckpointRow, Round
from trainer.bench.contestants import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY
from trainer.bench.geometry import Geometry
from trainer.bench.problem import SFACE, Problem
from trainer.bench.summary import quartiles
from trainer.checkpoint import CheckpointSaver, Position, Retention, Trained
from trainer.config import Config, config_from
from trainer.world import World

SPREAD, TOLERANCE = 0.06, 1e-3
DIFFERENT_BATCHES = 32  # steps go round them: how many a checkpoint takes is not known before
FEWEST_STEPS, MOST_STEPS = 5, 40  # alone, before and after those beside an asynchronous checkpoint


class CheckpointBench:
    """Draws a head as in the steady phase of a training, and a backbone that is saved but not trained.

    A step is the head's forward, backward and update. With a backbone's it would be longer, and the stall a smaller
    share of it. now: seconds.
    """

    def __init__(self, effort: CheckpointEffort, folder: Path, world: World, now: Callable[[], float]) -> None:
        self._effort, self._folder, self._world, self._now = effort, folder, world, now
        self._config = _config(effort, folder)
        problem = Problem(SFACE, effort.num_classes, effort.embedding_dim, effort.batch, SPREAD, TOLERANCE)
        geometry = Geometry(effort.embedding_dim, SPREAD, effort.seed)
        self._trained = _trained(self._config, geometry, effort)
        centers = self._trained.head.stored_centers.detach()
        drawn = draw_batches(DIFFERENT_BATCHES, problem, centers, geometry, world, effort.seed)
        self._batches: Iterator[Batch] = itertools.cycle(drawn)
        self._savers = {kind: self._saver(asynchronous=kind) for kind in (False, True)}
        self._steps = 0

    def run(self, after_round: Callable[[int], None]) -> CheckpointRow:
        """Measure; every rank calls it and gets the same row."""
        for _ in range(self._effort.warmup):
            self._step()
        self._round()  # libraries, and the first pages of the memory for copies
        rounds = []
        for number in range(self._effort.repetitions):
            rounds.append(self._round())
            after_round(number + 1)
        parts = self._savers[True].copied_parts(self._trained).values()
        copied = sum(part.tensor.nbytes for part in parts)
        whole, most = _over_ranks([copied], dist.ReduceOp.SUM, self._world), self._slowest([copied])
        return self._row(rounds, int(whole[0]), int(most[0]))

    def _round(self) -> Round:
        self._meet()
        began = self._now()
        (outcome,) = self._savers[False].save(self._trained, self._position())
        synchronous = self._now() - began
        if outcome.error is not None:
            raise outcome.error
        saver = self._savers[True]
        saver.reserve(saver.copied_parts(self._trained))  # as a run does before a checkpoint is due
        plain = self._timed_steps(FEWEST_STEPS)
        self._meet()
        saver.save(self._trained, self._position())
        beside: list[float] = []
        ended = None
        while ended is None:
            beside += self._timed_steps(1)
            busy, failed = any_rank_each(self._world, saver.flags)
            ended = saver.advance(busy=busy, failed=failed)
        if ended.error is not None:
            raise ended.error
        plain += self._timed_steps(min(MOST_STEPS, max(FEWEST_STEPS, len(beside))))
        step = statistics.mean(plain)
        longer = sum(beside) - len(beside) * step
        return Round(*self._slowest([synchronous, ended.stall_seconds, ended.seconds, step, longer]))

    def _timed_steps(self, count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            began = self._now()
            self._step()
            seconds.append(self._now() - began)
        return seconds

    def _step(self) -> None:
        batch = next(self._batches)
        self._trained.head(batch.embeddings.detach().requires_grad_(), batch.identities).backward()
        self._trained.center_optimizer.step()
        self._trained.center_optimizer.zero_grad()
        self._steps += 1

    def _position(self) -> Position:
        return Position(self._steps, self._steps * self._effort.batch * self._world.world_size, {})

    def _saver(self, *, asynchronous: bool) -> CheckpointSaver:
        return CheckpointSaver(
            self._folder,
            config=self._config,
            world=self._world,
            retention=Retention(1),
            asynchronous=asynchronous,
            now=self._now,
        )

    def _meet(self) -> None:
        if self._world.world_size > 1:
            dist.barrier()

    def _slowest(self, values: list[float]) -> list[float]:
        return _over_ranks(values, dist.ReduceOp.MAX, self._world)

    def _row(self, rounds: list[Round], checkpoint_bytes: int, copy_bytes: int) -> CheckpointRow:
        effort = self._effort
        sync, stall, over_sync = (
            quartiles(values)
            for values in (
                [each.synchronous for each in rounds],
                [each.stall for each in rounds],
                [each.stall / each.synchronous for each in rounds],
            )
        )
        return CheckpointRow(
            num_classes=effort.num_classes,
            embedding_dim=effort.embedding_dim,
            batch=effort.batch,
            backbone=effort.backbone,
            world_size=self._world.world_size,
            threads=effort.threads,
            repetitions=len(rounds),
            warmup=effort.warmup,
            seed=effort.seed,
            checkpoint_bytes=checkpoint_bytes,
            copy_bytes=copy_bytes,
            step_seconds=statistics.median(each.step for each in rounds),
            sync_seconds=sync[1],
            sync_seconds_q1=sync[0],
            sync_seconds_q3=sync[2],
            stall_seconds=stall[1],
            stall_seconds_q1=stall[0],
            stall_seconds_q3=stall[2],
            complete_seconds=statistics.median(each.complete for each in rounds),
            stall_over_sync=over_sync[1],
            stall_over_sync_q1=over_sync[0],
            stall_over_sync_q3=over_sync[2],
            stall_over_step=statistics.median(each.stall / each.step for each in rounds),
            cost_over_sync=statistics.median((each.stall + each.beside) / each.synchronous for each in rounds),
        )


def bench_checkpoint(
    effort: CheckpointEffort,
    folder: Path,
    *,
    world: World,
    now: Callable[[], float],
    after_round: Callable[[int], None],
) -> CheckpointRow:
    """One row; ``folder``, which all ranks see, takes two checkpoints at a time and is empty again afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return CheckpointBench(effort, folder, world, now).run(after_round)
    finally:
        if world.is_first:
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _config(effort: CheckpointEffort, folder: Path) -> Config:
    return config_from(
        {
            "run": {"output": str(folder)},
            "data": {"records": "none.rec"},
            "train": {"steps": 1},
            "backbone": {"name": effort.backbone, "embedding_dim": effort.embedding_dim},
        },
        "pfc bench checkpoint",
    )


def _trained(config: Config, geometry: Geometry, effort: CheckpointEffort) -> Trained:
    backbone = build_backbone(
        BackboneConfig(name=config.backbone.name, embedding_dim=effort.embedding_dim), image_size=112
    )
    sgd = torch.optim.SGD(backbone.parameters(), lr=0.0, momentum=MOMENTUM)
    for parameter in backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sgd.step()  # its momentum is part of a checkpoint
    sgd.zero_grad()
    head = PartialFC(effort.num_classes, effort.embedding_dim, tolerance=TOLERANCE, seed=effort.seed)
    centers = head.centers.detach()
    geometry.fill_centers(centers, head.class_shard.start)
    head.load_centers(centers)  # onto themselves: tells the head that they changed
    optimizer = CenterSGD(head, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    return Trained(backbone, sgd, head, optimizer)


def _over_ranks(values: list[float], operation: dist.ReduceOp.RedOpType, world: World) -> list[float]:
    if world.world_size == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, op=operation)
    reduced: list[float] = tensor.tolist()
    return reduced
