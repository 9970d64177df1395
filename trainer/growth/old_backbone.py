"""The old run's backbone: held against the new one while that is still whole, put in its place afterwards.

An engine may split the new one over the ranks; what does not fit must be told before.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.backbones.pretrained import check_weights
from trainer.checkpoint import Trained
from trainer.checkpoint.trained import load_optimizer_state
from trainer.errors import ConfigError
from trainer.growth.old_run import OldRun
from trainer.world import World


@dataclass(frozen=True)
class OldBackbone:
    """weights: a state dict. optimizer: state by parameter name; empty where momentum is not kept."""

    folder: Path
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]

    @classmethod
    def read(cls, old: OldRun, world: World, *, keep_momentum: bool) -> "OldBackbone":
        """Whole, on every rank. Raises ConfigError on all of them for a checkpoint that is damaged."""
        shared = old.description.shared
        saved = {"backbone": shared["backbone"]} | ({"optimizer": shared["optimizer"]} if keep_momentum else {})
        state = old.read(saved, world=world)
        return cls(old.folder, state["backbone"], state.get("optimizer", {}))

    def check(self, backbone: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Raises ConfigError where it does not fit ``backbone``, whole on this rank, and its ``optimizer``."""
        check_weights(backbone, self.weights, source=self.folder)
        self._check_optimizer(dict(backbone.named_parameters()), optimizer)

    def put_into(self, trained: Trained) -> None:
        """Take the place of the weights there, and of the momentum if it is kept; all ranks call it."""
        if trained.partitioned is not None:
            trained.partitioned.load(self.weights, self.optimizer)
            return
        trained.backbone.load_state_dict(self.weights)
        if self.optimizer:
            load_optimizer_state(trained.backbone, trained.backbone_optimizer, self.optimizer)

    def _check_optimizer(self, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        kept = {key for of_parameter in self.optimizer.values() for key in of_parameter}
        expected = "momentum_buffer" if isinstance(optimizer, torch.optim.SGD) else "exp_avg"
        problem = None
        if kept and expected not in kept:
            problem = f"was another one, with {', '.join(sorted(kept))}"
        for name, state in self.optimizer.items():
            if problem is not None:
                break
            for key, value in state.items():
                if name not in parameters or value.shape not in ((), parameters[name].shape):
                    problem = f"has a {key} {list(value.shape)} of {name}, which this run's backbone does not have"
                elif not bool(value.isfinite().all()):
                    problem = f"has a {key} of {name} that is not finite"
        if problem is not None:
            raise ConfigError(
                f"growth.momentum = 'keep': the backbone's optimizer in {self.folder} {problem}: "
                "set growth.momentum = 'empty'"
            )
