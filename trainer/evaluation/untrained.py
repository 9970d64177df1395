"""A network that has learned nothing: the floor against which an accuracy is to be read."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CALIBRATION_BATCHES = 8


def calibrate_batch_norm(module: nn.Module, images: Tensor, *, batch_size: int, device: torch.device) -> None:
    """Set the running statistics of batch norm to the average over the first few batches of ``images``.

    images: [M, 3, S, S] uint8, M >= 2. Freshly built deep networks need it: with the initial statistics (mean 0,
    variance 1) nothing keeps activations in range in evaluation mode, and 100 layers overflow. No weight changes.
    """
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    was_training = module.training
    module.train()
    with torch.no_grad():
        for batch in torch.split(images, max(batch_size, 2))[:CALIBRATION_BATCHES]:
            if len(batch) > 1:  # one image has no variance
                module(batch.to(device).float().sub_(127.5).div_(127.5))
    module.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
