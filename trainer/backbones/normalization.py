"""The normalisation layers of a network exchanged for others of the same shape."""

from typing import Literal

import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.backbones.sync_batch_norm import SyncBatchNorm

Normalization = Literal["batch", "sync_batch", "group"]

CHANNELS_PER_GROUP = 16
"""As in Wu & He, "Group Normalization", ECCV 2018: a group has enough values even where a feature map is one pixel."""


def convert_normalization(
    network: nn.Module, normalization: Normalization, *, group: dist.ProcessGroup | None = None
) -> None:
    """Replace every ``nn.BatchNorm`` inside ``network``, in place; "batch" leaves it as it is.

    "sync_batch": :class:`SyncBatchNorm` over the ranks of ``group``, the same state dict.
    "group": ``nn.GroupNorm``, which sees one sample alone; feature maps in groups of 16 channels, feature
    vectors as one group (layer norm). Its state dict has no running statistics.

    Parameters keep their values, places and ``requires_grad``.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                parent.register_module(name, _converted(child, normalization, group))


def _converted(norm: _BatchNorm, normalization: Normalization, group: dist.ProcessGroup | None) -> nn.Module:
    if normalization == "batch":
        return norm
    new: nn.Module
    if normalization == "sync_batch":
        new = SyncBatchNorm(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, group=group
        )
        for name, buffer in norm.named_buffers():
            new.register_buffer(name, buffer)
    else:
        in_groups = not isinstance(norm, nn.BatchNorm1d) and norm.num_features % CHANNELS_PER_GROUP == 0
        groups = norm.num_features // CHANNELS_PER_GROUP if in_groups else 1
        new = nn.GroupNorm(groups, norm.num_features, norm.eps, norm.affine)
    for name, parameter in norm.named_parameters():
        new.register_parameter(name, parameter)
    return new.train(norm.training)
