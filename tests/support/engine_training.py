"""A few steps of a small model by any engine on any number of ranks, through the trainer's own step.

Nothing in the network sees more than one sample unless batch norm is asked for, so how a batch is split cannot change
what is learned. Shape letters: B a rank's images, N global batch, D embedding size.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from data_pipeline import Batch
from partial_fc import CenterSGD, CombinedMargin, PartialFC, SFace
from trainer.backbones.activation_checkpointing import run_block
from trainer.backbones.precision import leave_trunk, trunk_autocast
from trainer.checkpoint import Trained
from trainer.engine import DDPEngine, DeepSpeedEngine, Engine, LossScaler
from trainer.optimizer_config import OptimizerConfig
from trainer.optimizers import backbone_optimizer
from trainer.phases import PhaseClock
from trainer.step import StepResult, TrainStep
from trainer.world import World, joined_world, prepare_deepspeed

CLASSES, DIM, SIZE = 2203, 24, 8
BATCHES = (12, 12, 7, 12, 5)  # N of each step; most are no multiple of the ranks or of the micro-batches

PUSHING = SFace(b=1.45)  # many active pairs in a small problem
SGD = OptimizerConfig(lr=0.05, weight_decay=1e-3)
ADAMW = OptimizerConfig(
    kind="adamw", lr=0.002, weight_decay=0.05, decay_norm_and_bias=False, center_lr=0.05, center_weight_decay=1e-3
)


@dataclass(frozen=True)
class Training:
    """zero: None is DDP, otherwise the stage under DeepSpeed. trunk: type of the layers before the projection."""

    zero: int | None = None
    optimizer: OptimizerConfig = SGD
    micro_batches: int = 1
    clip_norm: float | None = 20.0
    loss_scale: float | None = None
    dtype: torch.dtype = torch.float32
    trunk: torch.dtype = torch.float32
    tolerance: float = 0.0
    checkpointed: bool = False
    compiled: bool = False
    batch_norm: bool = False
    loss: SFace | CombinedMargin = PUSHING


class Network(nn.Module):
    """[B, 3, 8, 8] -> [B, D]; neither 2 nor 3 ranks divide its parameters evenly. ``poison`` acts on embeddings."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.checkpointed, self.trunk = training.checkpointed, training.trunk
        norm = nn.BatchNorm2d(7) if training.batch_norm else nn.GroupNorm(1, 7)
        self.stem = nn.Conv2d(3, 7, 3)
        self.block = nn.Sequential(nn.Conv2d(7, 7, 3, padding=1), norm, nn.PReLU(7, init=0.9))
        self.project = nn.Linear(7 * 36, DIM)
        self.poison: Callable[[Tensor], Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        with trunk_autocast("cpu", self.trunk):
            x = run_block(self.block, self.stem(images), checkpointed=self.checkpointed)
        out: Tensor = self.project(leave_trunk(x).flatten(1))
        return out if self.poison is None else self.poison(out)


def network(training: Training) -> Network:
    torch.manual_seed(1)
    return Network(training).to(training.dtype)


def table(stage: int) -> dict[str, Any]:
    """Small buckets, and every parameter split."""
    zero: dict[str, Any] = {"stage": stage, "reduce_bucket_size": 700}
    return {"zero_optimization": zero | ({"stage3_param_persistence_threshold": 0} if stage == 3 else {})}


def build(training: Training, world: World) -> tuple[Trained, Engine]:
    module = network(training)
    head = PartialFC(CLASSES, DIM, training.loss, tolerance=training.tolerance)
    chosen = training.optimizer
    center_optimizer = CenterSGD(
        head, lr=chosen.lr * chosen.center_lr_share, momentum=chosen.momentum, weight_decay=chosen.decay_of_centers
    )
    optimizer = backbone_optimizer(chosen, module)
    scaler = None if training.loss_scale is None else LossScaler(training.loss_scale)
    shared: dict[str, Any] = {
        "image_size": SIZE,
        "clip_norm": training.clip_norm,
        "compiled_batch": 6 if training.compiled else None,
    }
    if training.zero is None:
        engine: Engine = DDPEngine(module, optimizer, world, loss_scaler=scaler, **shared)
        return Trained(module, optimizer, head, center_optimizer, loss_scaler=scaler), engine
    prepare_deepspeed(world)
    deepspeed = DeepSpeedEngine(module, optimizer, world, table=table(training.zero), **shared)
    return Trained(module, optimizer, head, center_optimizer, deepspeed.partitioned), deepspeed


def train_step(trained: Trained, engine: Engine, world: World, training: Training) -> TrainStep:
    return TrainStep(
        engine,
        trained.backbone,
        trained.head,
        trained.center_optimizer,
        world=world,
        clock=PhaseClock(time.perf_counter),
        micro_batches=training.micro_batches,
        center_lr_share=training.optimizer.center_lr_share,
    )


def global_batch(step: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(100 + step)
    identities = torch.randint(CLASSES, (BATCHES[step % len(BATCHES)],), generator=draw)
    patterns = torch.randn(CLASSES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    noise = torch.randn(len(identities), 3, SIZE, SIZE, generator=draw)
    return (patterns[identities] + 0.3 * noise).to(dtype), identities


def local_batch(step: int, world: World, dtype: torch.dtype) -> tuple[Batch, int]:
    """This rank's part, cut as the loader does, and N."""
    images, identities = global_batch(step, dtype)
    count = len(identities)
    rows = slice(count * world.rank // world.world_size, count * (world.rank + 1) // world.world_size)
    return Batch(images[rows], identities[rows], torch.arange(count)[rows]), count


def take_steps(
    trained: Trained,
    engine: Engine,
    world: World,
    training: Training,
    steps: Iterable[int],
    poisons: dict[int, Callable[[Tensor], Tensor]] | None = None,
) -> list[StepResult]:
    """``poisons``: what happens to this rank's embeddings in which step."""
    step = train_step(trained, engine, world, training)
    results = []
    for number in steps:
        batch, count = local_batch(number, world, training.dtype)
        assert isinstance(trained.backbone, Network)
        trained.backbone.poison = (poisons or {}).get(number)
        results.append(step(batch, training.optimizer.lr * (1.0 - 0.05 * number), global_batch=count))
    return results


@dataclass(frozen=True)
class Learned:
    """weights: whole on every rank, running statistics with them. centers: this rank's rows."""

    weights: dict[str, Tensor]
    centers: Tensor
    results: list[StepResult]


def learned(trained: Trained, results: list[StepResult]) -> Learned:
    whole = trained.partitioned
    state = trained.backbone.state_dict() if whole is None else whole.weights(everywhere=True)
    weights = {name: value.detach().clone() for name, value in state.items()}
    return Learned(weights, trained.head.centers.detach().clone(), results)


def train(
    training: Training,
    world: World,
    steps: Iterable[int],
    poisons: dict[int, Callable[[Tensor], Tensor]] | None = None,
) -> Learned:
    trained, engine = build(training, world)
    results = take_steps(trained, engine, world, training, steps, poisons)
    found = learned(trained, results)
    engine.close()
    return found


@contextmanager
def world_of(rank: int, world_size: int) -> Iterator[World]:
    """The gang's world; alone one that has a process group, as the trainer makes it for DeepSpeed."""
    if world_size > 1:
        yield World(rank, world_size, rank, torch.device("cpu"))
        return
    with joined_world("cpu", expected_size=1, timeout_seconds=60, group_alone=True, environment={}) as world:
        yield world


def flat(weights: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.double().flatten() for value in weights.values()])


def difference(found: Tensor, truth: Tensor, beginning: Tensor) -> float:
    """How far ``found`` is from ``truth``, relative to the way from ``beginning`` to it."""
    return float((found.double() - truth.double()).norm() / (truth.double() - beginning.double()).norm())
