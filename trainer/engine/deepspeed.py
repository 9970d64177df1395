"""The backbone under DeepSpeed: ZeRO 0 whole on every rank, 1 to 3 with its state, gradients and weights split.

The head stays outside. DeepSpeed divides the ranks' sum of gradients by their number W, which the factor W on the
embeddings' gradient undoes (ZeRO 3 cannot be told to sum); the centers' gradient sees nothing of either.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from partial_fc import scale_gradient
from trainer.deepspeed_config import bucket_size, zero_stage
from trainer.engine.base import Engine, Outcome
from trainer.engine.compiling import compiled, compiler_errors
from trainer.engine.data_parallel import throw_away_passes
from trainer.engine.deepspeed_library import check_config, import_deepspeed
from trainer.engine.gradient import agreed_norm, clip_factor, gradients_of, scale_gradients
from trainer.engine.partitioned import PartitionedBackbone
from trainer.world import World


class DeepSpeedEngine(Engine):
    """``backbone`` and its ``optimizer`` belong to DeepSpeed from here on.

    table: what of DeepSpeed's configuration is the user's; see :mod:`trainer.deepspeed_config`. clip_norm: longest
    gradient, None: any. compiled_batch: compile the backbone, for micro-batches of so many images; None: do not.
    Raises ConfigError for a table that DeepSpeed refuses and for a backbone that cannot be compiled.
    """

    def __init__(
        self,
        backbone: nn.Module,
        optimizer: torch.optim.Optimizer,
        world: World,
        *,
        image_size: int,
        table: dict[str, Any] | None,
        clip_norm: float | None = None,
        compiled_batch: int | None = None,
    ) -> None:
        self._world = world
        self._backbone = backbone
        self._clip_norm = clip_norm
        self._parameters = list(backbone.parameters())
        stage = zero_stage(table)
        self._whole = stage == 0
        # Ranks evaluate in different numbers of passes, and a network split by ZeRO 3 needs all of them in each.
        self._copy = copy.deepcopy(backbone).cpu() if stage == 3 else None
        deepspeed = import_deepspeed()
        config = _configuration(table, backbone, 0.0 if self._whole or clip_norm is None else clip_norm)
        check_config(deepspeed, config)
        network = backbone
        if compiled_batch is not None:
            with compiler_errors():
                network = compiled(backbone)
                throw_away_passes(network, world.device, image_size=image_size, batch=compiled_batch, passes=1)
        devices = [world.device] if world.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self._engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config)
        self.partitioned = None if self._whole else PartitionedBackbone(deepspeed, self._engine, backbone, world)

    @contextmanager
    def micro_batch(self, *, last: bool) -> Iterator[None]:
        """As of any engine; ZeRO 2 and 3 exchange gradients in every micro-batch."""
        self._engine.set_gradient_accumulation_boundary(last)
        yield

    def embed(self, images: Tensor) -> Tensor:
        """As of any engine."""
        return scale_gradient(self._engine(images), self._world.world_size)

    def backward(self, loss: Tensor) -> None:
        """As of any engine."""
        self._engine.backward(loss, scale_wrt_gas=False)

    def update(self, learning_rate: float, *, loss_finite: bool) -> Outcome:
        """As of any engine. ZeRO 1 to 3 decide inside DeepSpeed, from the norm over all ranks' parts."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        if self._whole:
            return self._update_whole()
        self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        return Outcome(self._engine.was_step_applied(), norm if math.isfinite(norm) else math.inf)

    def to_evaluate(self) -> nn.Module:
        """The backbone itself; under ZeRO 3 a copy that has the weights of all ranks."""
        if self._copy is None:
            return self._backbone
        assert self.partitioned is not None, "ZeRO 3 splits the weights"
        self._copy.load_state_dict(self.partitioned.weights(everywhere=True))
        return self._copy.to(self._world.device)

    def close(self) -> None:
        """Take the place of the last tensors in the hands of DeepSpeed's group: see trainer.world.joined_world."""
        self._last = torch.zeros(1)
        for _ in range(4):
            dist.all_reduce(self._last, group=self._engine.seq_data_parallel_group)
        self._engine.destroy()

    def abandon(self) -> None:
        """Take DeepSpeed's hooks off the network, before its groups are gone."""
        with suppress(Exception):  # amid whatever has failed; what ended the run is told already
            self._engine.destroy()

    def _update_whole(self) -> Outcome:
        """Without ZeRO DeepSpeed steps whatever the gradient is, and does not tell its norm."""
        gradients = gradients_of(self._parameters)
        norm = agreed_norm(gradients, self._world)
        if not math.isfinite(norm):
            self._engine.zero_grad()
            return Outcome(False, math.inf)
        scale_gradients(gradients, clip_factor(norm, self._clip_norm))
        self._engine.step()
        return Outcome(True, norm)


def _configuration(table: dict[str, Any] | None, backbone: nn.Module, clip_norm: float) -> dict[str, Any]:
    """All of DeepSpeed's configuration: the user's part and what the trainer decides."""
    zero = dict((table or {}).get("zero_optimization", {}))
    zero.setdefault("reduce_bucket_size", bucket_size(sum(parameter.numel() for parameter in backbone.parameters())))
    return (table or {}) | {
        "zero_optimization": zero,
        "train_micro_batch_size_per_gpu": 1,  # book-keeping of DeepSpeed's own reports
        "gradient_accumulation_steps": 1,  # micro_batch() says where a step ends, and losses come weighted
        "gradient_clipping": clip_norm,  # its own default is 1
        "zero_allow_untested_optimizer": True,  # torch.optim.SGD
    }
