"""One optimizer step, from a batch of images to updated weights and centers."""

import math

import torch
from torch import nn

from data_pipeline import Batch
from partial_fc import CenterSGD, HeadStats, PartialFC
from trainer.phases import PhaseClock


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite: the run has diverged and must not overwrite good checkpoints."""


class TrainStep:
    """Forward, head, backward, update.

    backbone: images [B, 3, S, S] -> embeddings [B, D], wrapped so that gradients are summed over ranks.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: PartialFC,
        backbone_optimizer: torch.optim.Optimizer,
        center_optimizer: CenterSGD,
        *,
        device: torch.device,
        clock: PhaseClock,
    ) -> None:
        self._backbone = backbone
        self._head = head
        self._optimizers: tuple[torch.optim.Optimizer, ...] = (backbone_optimizer, center_optimizer)
        self._device = device
        self._clock = clock

    def __call__(self, batch: Batch, learning_rate: float) -> HeadStats:
        """Train on one batch; returns the head's statistics over the global batch.

        Raises NonFiniteLossError before any weight has changed.
        """
        with self._clock.phase("data"):
            images = batch.images.to(self._device, non_blocking=True)
            identities = batch.identities.to(self._device, non_blocking=True)
        with self._clock.phase("forward"):
            embeddings = self._backbone(images)
        with self._clock.phase("head"):
            loss = self._head(embeddings, identities)
        stats = self._head.stats
        assert stats is not None, "the head has just run"
        if not math.isfinite(stats.loss):
            raise NonFiniteLossError(
                "the loss is not finite (intra "
                f"{stats.loss_intra}, inter {stats.loss_inter}): lower optimizer.lr or lengthen schedule.warmup, "
                "and resume from the last checkpoint"
            )
        with self._clock.phase("backward"):
            loss.backward()
        with self._clock.phase("optimizer"):
            for optimizer in self._optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return stats
