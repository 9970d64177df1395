"""The backbone whole on every rank, gradients summed by DistributedDataParallel."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from partial_fc import scale_gradient
from trainer.engine.base import Engine, Outcome
from trainer.engine.compiling import compiled, compiler_errors
from trainer.engine.data_parallel import data_parallel, gradient_use, throw_away_passes
from trainer.engine.gradient import agreed_norm, clip_factor, gradients_of, scale_gradients
from trainer.engine.loss_scale import LossScaler
from trainer.world import World


class DDPEngine(Engine):
    """``backbone`` is wrapped for ``world``; ``optimizer`` holds its parameters.

    clip_norm: longest gradient, None: any. loss_scaler: for a float16 backbone. compiled_batch: compile the backbone,
    for micro-batches of so many images (others are compiled when they come); None: do not.
    Raises ConfigError for a backbone that cannot be compiled.
    """

    def __init__(
        self,
        backbone: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        *,
        image_size: int,
        clip_norm: float | None = None,
        loss_scaler: LossScaler | None = None,
        compiled_batch: int | None = None,
    ) -> None:
        self._backbone = backbone
        self._optimizer = optimizer
        self._world = world
        self._clip_norm = clip_norm
        self._scaler = loss_scaler
        self._parameters = list(backbone.parameters())
        self.collectives = gradient_use()
        if compiled_batch is None:
            self._network = data_parallel(backbone, world, image_size=image_size, use=self.collectives)
            return
        with compiler_errors():
            network = compiled(backbone)
            self._network = data_parallel(
                network, world, image_size=image_size, settling_batch=compiled_batch, use=self.collectives
            )
            if world.world_size == 1:
                throw_away_passes(network, world.device, image_size=image_size, batch=compiled_batch, passes=1)

    def micro_batch(self, *, last: bool) -> AbstractContextManager[object]:
        """As of any engine: without exchange for all but the last, whose hook would sum summed gradients again."""
        if last or not isinstance(self._network, DistributedDataParallel):
            return nullcontext()
        return self._network.no_sync()

    def embed(self, images: Tensor) -> Tensor:
        """As of any engine."""
        embeddings: Tensor = self._network(images)
        return embeddings if self._scaler is None else scale_gradient(embeddings, self._scaler.scale)

    def backward(self, loss: Tensor) -> None:
        """As of any engine."""
        loss.backward()  # type: ignore[no-untyped-call]

    def update(self, learning_rate: float, *, loss_finite: bool) -> Outcome:
        """As of any engine."""
        gradients = gradients_of(self._parameters)
        scale = 1.0 if self._scaler is None else self._scaler.scale
        norm = agreed_norm(gradients, self._world) / scale
        finite = math.isfinite(norm) and loss_finite
        overflow = False
        if self._scaler is not None and loss_finite:
            overflow = self._scaler.follow(finite=finite)
        if finite:
            scale_gradients(gradients, clip_factor(norm, self._clip_norm) / scale)
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return Outcome(finite, norm if finite else math.inf, scale, overflow)

    def to_evaluate(self) -> nn.Module:
        """The backbone itself."""
        return self._backbone
