"""Two steps of real backbones by DDP and by DeepSpeed, built from a run's configuration as the trainer does it.

Shape letters: B a rank's images, S image side.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_pipeline import Batch
from trainer.building import build_trained
from trainer.config import Config, config_from
from trainer.engine import DeepSpeedEngine
from trainer.phases import PhaseClock
from trainer.step import TrainStep
from trainer.world import World

SIZE, CLASSES, BATCH = 32, 37, 6
BUCKET = 54_321  # numbers; a key that only DeepSpeed reads
BACKBONES: dict[str, dict[str, Any]] = {
    "vit_t": {"name": "vit_t", "patch_size": 8},
    "iresnet18": {"name": "iresnet18"},
    "mobilefacenet": {"name": "mobilefacenet"},
    "vit_t bfloat16": {"name": "vit_t", "patch_size": 8, "precision": "bfloat16"},
}
# Stages below 3 differ in how weights are updated, not in what the network does: once is enough for 2.
STAGES = {name: (2, 3) if name == "vit_t" else (3,) for name in BACKBONES}
CASES = [(name, stage) for name, stages in STAGES.items() for stage in stages]


@dataclass(frozen=True)
class Trained:
    """weights: whole, after each step; all else of each step, too. bucket: what DeepSpeed has made of its own key."""

    begun: dict[str, Tensor]
    weights: list[dict[str, Tensor]]
    gradient_norms: list[float]
    losses: list[float]
    learning_rates: list[float]
    bucket: int | None


def configuration(folder: Path, backbone: dict[str, Any], stage: int | None) -> Config:
    """As from a file; DeepSpeed's own part is a JSON file of its own."""
    values: dict[str, Any] = {
        "run": {"output": str(folder / "out"), "seed": 3, "device": "cpu"},
        "data": {"records": "unused", "image_size": SIZE, "batch_size": BATCH},
        "backbone": {"embedding_dim": 16} | backbone,
        "head": {"loss": "cosface", "scale": 16.0},  # rounding is not amplified as by SFace's slope
        "optimizer": {"lr": 0.01},
        "train": {"steps": 2, "micro_batches": 2, "clip_norm": 5.0},
    }
    if stage is not None:
        zero = {"stage": stage, "reduce_bucket_size": BUCKET}
        zero |= {"stage3_param_persistence_threshold": 0} if stage == 3 else {}
        path = folder / f"zero{stage}.json"
        path.write_text(json.dumps({"zero_optimization": zero, "train_batch_size": "auto"}))
        values["train"]["engine"] = "deepspeed"
        values["deepspeed"] = {"config": str(path)}
        values["backbone"]["activation_checkpointing"] = True
    return config_from(values, "test")


def by_engine(rank: int, world_size: int, folder: Path) -> dict[Any, Trained]:
    """By backbone and engine (None is DDP); "pretrained": a network that starts from saved weights, under ZeRO 3."""
    world = World(rank, world_size, rank, torch.device("cpu"))
    own = folder / f"rank {rank}"
    own.mkdir()
    found: dict[Any, Trained] = {}
    for name, backbone in BACKBONES.items():
        for stage in (None, *STAGES[name]):
            found[name, stage] = _trained(configuration(own, backbone, stage), world)
    path = own / "weights.pt"
    torch.save(found["vit_t", None].weights[-1], path)
    found["pretrained", 3] = _trained(configuration(own, BACKBONES["vit_t"] | {"pretrained": str(path)}, 3), world)
    return found


def _trained(config: Config, world: World) -> Trained:
    trained, engine = build_trained(config, CLASSES, world)
    with engine:
        begun = _copy(engine.to_evaluate().state_dict())
        step = TrainStep(
            engine,
            trained.backbone,
            trained.head,
            trained.center_optimizer,
            world=world,
            clock=PhaseClock(time.perf_counter),
            micro_batches=config.train.micro_batches,
        )
        results, rates, weights = [], [], []
        for number in range(2):
            draw = torch.Generator().manual_seed(10 * number + world.rank)
            images = torch.randn(BATCH, 3, SIZE, SIZE, generator=draw)
            identities = torch.randint(CLASSES, (BATCH,), generator=draw)
            batch = Batch(images, identities, torch.arange(BATCH))
            results.append(step(batch, 0.01 * (1 + number), global_batch=BATCH * world.world_size))
            rates.append(trained.backbone_optimizer.param_groups[0]["lr"])
            weights.append(_copy(engine.to_evaluate().state_dict()))
        assert all(result.outcome.applied for result in results)
        bucket = engine._engine.zero_reduce_bucket_size() if isinstance(engine, DeepSpeedEngine) else None
        return Trained(
            begun,
            weights,
            [result.outcome.gradient_norm for result in results],
            [result.stats.loss for result in results],
            rates,
            bucket,
        )


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
