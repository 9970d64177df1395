"""The backbone's optimizer, from its configuration."""

from typing import Any

import torch
from torch import nn

from trainer.optimizer_config import OptimizerConfig


def backbone_optimizer(config: OptimizerConfig, backbone: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over all parameters that learn; the schedule sets ``lr`` anew in each step."""
    groups = parameter_groups(backbone, weight_decay=config.weight_decay, decay_vectors=config.decay_norm_and_bias)
    if config.kind == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)


def parameter_groups(backbone: nn.Module, *, weight_decay: float, decay_vectors: bool) -> list[dict[str, Any]]:
    """Groups for an optimizer. Without ``decay_vectors``, biases, norms and slopes have a group without weight decay:
    all parameters of one dimension.
    """
    learning = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    if decay_vectors:
        return [{"params": learning, "weight_decay": weight_decay}]
    vectors = [parameter for parameter in learning if parameter.dim() < 2]
    others = [parameter for parameter in learning if parameter.dim() >= 2]
    return [{"params": others, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
