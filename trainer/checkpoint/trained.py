"""What a checkpoint holds, and under which names."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from partial_fc import CenterSGD, PartialFC, center_state
from trainer.world import World

CENTERS, CENTER_MOMENTUM = "centers", "center_momentum"


@dataclass(frozen=True)
class Trained:
    """Everything of a run that learns or counts, as far as a checkpoint holds it."""

    backbone: nn.Module
    backbone_optimizer: torch.optim.Optimizer
    head: PartialFC
    center_optimizer: CenterSGD


@dataclass(frozen=True)
class Position:
    """Where a run stands: optimizer steps taken, samples seen by all ranks, the loader's exact place.

    metrics: what this rank has counted so far, plain values: see :mod:`trainer.metrics_so_far`. The learning rate is a
    function of the step alone, so there is nothing of it to keep.
    """

    step: int
    samples: int
    loader: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)


def shared_state(trained: Trained) -> dict[str, Any]:
    """What all ranks have alike: the backbone, its optimizer's state by parameter name, the head's numbers."""
    saved = center_state(trained.head, trained.center_optimizer)
    return {
        "backbone": trained.backbone.state_dict(),
        "optimizer": optimizer_state(trained.backbone, trained.backbone_optimizer),
        "head": {"steps_taken": saved["steps_taken"], "control": saved["control"]},
    }


def own_state(trained: Trained, world: World) -> dict[str, Any]:
    """What this rank alone has, besides its rows of the centers: momentum of rows in motion, random states."""
    shard = trained.head.class_shard
    state: dict[str, Any] = {
        "start": shard.start,
        "stop": shard.stop,
        "motion": center_state(trained.head, trained.center_optimizer)["motion"],
        "random_state": torch.get_rng_state(),
    }
    if world.device.type == "cuda":
        state["cuda_random_state"] = torch.cuda.get_rng_state(world.device)
    return state


def optimizer_state(backbone: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State of the backbone's optimizer by parameter name, not by place."""
    names = [name for name, _ in backbone.named_parameters()]
    return {names[place]: state for place, state in optimizer.state_dict()["state"].items()}


def load_optimizer_state(backbone: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The counterpart of :func:`optimizer_state`; learning rates and the like stay the optimizer's own.

    Raises ValueError for a parameter that the backbone does not have.
    """
    places = {name: place for place, (name, _) in enumerate(backbone.named_parameters())}
    unknown = sorted(state.keys() - places.keys())
    if unknown:
        raise ValueError(f"the backbone has no parameter {unknown[0]}")
    own = optimizer.state_dict()
    optimizer.load_state_dict(own | {"state": {places[name]: value for name, value in state.items()}})
