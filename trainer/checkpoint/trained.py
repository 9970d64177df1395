"""What a checkpoint holds, and under which names."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import nn

from partial_fc import CenterSGD, PartialFC, center_state
from trainer.engine.loss_scale import LossScaler
from trainer.engine.partitioned import PartitionedBackbone
from trainer.world import World

CENTERS, CENTER_MOMENTUM, SEEN_CLASSES = "centers", "center_momentum", "seen_classes"
CENTER_DTYPES = frozenset({torch.float32, torch.bfloat16})  # what centers are kept and saved in


@dataclass
class Passed:
    """Steps that were not taken, since the run began. non_finite: loss or gradient was NaN or infinite; in_a_row: so
    many of them came last. overflow: float16's loss scale was too large. rollbacks: since the last good checkpoint.
    """

    non_finite: int = 0
    in_a_row: int = 0
    overflow: int = 0
    rollbacks: int = 0

    def take(self, other: "Passed") -> None:
        """Count on from where ``other`` stands."""
        for each in fields(Passed):
            setattr(self, each.name, getattr(other, each.name))


@dataclass(frozen=True)
class Trained:
    """Everything of a run that learns or counts, as far as a checkpoint holds it.

    partitioned: who puts backbone and optimizer state together where ZeRO has split them; None where they are whole.
    """

    backbone: nn.Module
    backbone_optimizer: torch.optim.Optimizer
    head: PartialFC
    center_optimizer: CenterSGD
    partitioned: PartitionedBackbone | None = None
    loss_scaler: LossScaler | None = None
    passed: Passed = field(default_factory=Passed)


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
    """What all ranks have alike: the backbone, its optimizer's state by parameter name, the head's numbers, the loss
    scale, the steps passed over. Tensors are whole, whatever the engine; all ranks call it, the first one writes.
    """
    saved = center_state(trained.head, trained.center_optimizer)
    whole = trained.partitioned
    state: dict[str, Any] = {
        "backbone": trained.backbone.state_dict() if whole is None else whole.weights(),
        "optimizer": optimizer_state(trained.backbone, trained.backbone_optimizer)
        if whole is None
        else whole.optimizer_state(),
        "head": {"steps_taken": saved["steps_taken"], "control": saved["control"]},
        "passed": asdict(trained.passed),
    }
    if trained.loss_scaler is not None:
        state["loss_scale"] = trained.loss_scaler.state()
    return state


def load_shared_state(trained: Trained, state: dict[str, Any]) -> None:
    """The counterpart of :func:`shared_state`, all but the head's numbers; from any engine, to any other.

    Raises KeyError, ValueError or RuntimeError for what does not fit.
    """
    if trained.partitioned is None:
        trained.backbone.load_state_dict(state["backbone"])
        load_optimizer_state(trained.backbone, trained.backbone_optimizer, state["optimizer"])
    else:
        trained.partitioned.load(state["backbone"], state["optimizer"])
    # What earlier versions did not know yet has its value at a beginning.
    if trained.loss_scaler is not None and "loss_scale" in state:
        trained.loss_scaler.load_state(state["loss_scale"])
    trained.passed.take(Passed(**{name: int(count) for name, count in state.get("passed", {}).items()}))


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
    """State of the backbone's optimizer by parameter name, not by place in its groups."""
    names = _names(backbone, optimizer)
    return {names[place]: state for place, state in optimizer.state_dict()["state"].items()}


def load_optimizer_state(backbone: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The counterpart of :func:`optimizer_state`; learning rates and the like stay the optimizer's own.

    Raises ValueError for a parameter that the backbone does not have.
    """
    places = {name: place for place, name in enumerate(_names(backbone, optimizer))}
    unknown = sorted(state.keys() - places.keys())
    if unknown:
        raise ValueError(f"the backbone has no parameter {unknown[0]}")
    own = optimizer.state_dict()
    optimizer.load_state_dict(own | {"state": {places[name]: value for name, value in state.items()}})


def _names(backbone: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    """Of the parameters, in the order in which the optimizer numbers them."""
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
