"""Weights and optimizer state of a backbone that ZeRO has split over the ranks: put together, and split again.

ZeRO lays all parameters of a group end to end and gives each rank a stretch of that (stages 1 and 2), or gives each
rank a stretch of every parameter (stage 3). The optimizer sees flat stretches. DeepSpeed's ``safe_get_full_*`` and
``safe_set_full_*`` translate between a parameter and the ranks' stretches.
"""

from typing import Any

import torch
from torch import Tensor, nn

from trainer.world import World


class PartitionedBackbone:
    """``backbone`` under the DeepSpeed ``engine``, ZeRO stage 1, 2 or 3. All ranks call every method together."""

    def __init__(self, deepspeed: Any, engine: Any, backbone: nn.Module, world: World) -> None:
        self._deepspeed = deepspeed
        self._zero = engine.optimizer
        self._backbone = backbone
        self._world = world
        self._learning = {name: each for name, each in backbone.named_parameters() if each.requires_grad}
        self._splits_weights = engine.zero_optimization_partition_weights()

    def weights(self, *, everywhere: bool = False) -> dict[str, Tensor]:
        """The backbone's state dict with whole tensors; on other ranks than the first empty, unless ``everywhere``."""
        keep = everywhere or self._world.is_first
        state = self._backbone.state_dict()
        if self._splits_weights:
            for name, parameter in self._backbone.named_parameters():
                with self._deepspeed.zero.GatheredParameters([parameter]):
                    if keep:
                        state[name] = parameter.detach().cpu().clone()
        return state if keep else {}

    def optimizer_state(self) -> dict[str, Any]:
        """As :func:`trainer.checkpoint.trained.optimizer_state`; on other ranks than the first empty.

        One parameter after the other: no rank ever holds more than one whole beyond what it keeps.
        """
        keep = self._world.is_first
        self._link_states()
        states: dict[str, Any] = {name: {} for name in self._learning}
        for key, value in self._common_state().items():
            for name, parameter in self._learning.items():
                if value is not None:
                    states[name][key] = value.clone()
                    continue
                whole = self._deepspeed.utils.safe_get_full_optimizer_state(parameter, key)
                if keep:
                    states[name][key] = whole.cpu()
        return {name: state for name, state in states.items() if state} if keep else {}

    def load(self, weights: dict[str, Tensor], optimizer_state: dict[str, Any]) -> None:
        """Put whole tensors, the same on all ranks, into the ranks' stretches.

        Raises ValueError for a parameter that the backbone does not have, RuntimeError for weights that do not fit.
        """
        unknown = sorted(optimizer_state.keys() - self._learning.keys())
        if unknown:
            raise ValueError(f"the backbone has no parameter {unknown[0]}")
        if self._splits_weights:
            with self._deepspeed.zero.GatheredParameters(list(self._backbone.parameters()), modifier_rank=0):
                self._backbone.load_state_dict(weights)
        else:
            self._backbone.load_state_dict(weights)
        self._zero.refresh_fp32_params()
        self._reset_optimizer_state(optimizer_state)
        for name, state in optimizer_state.items():
            for key, value in state.items():
                if value.dim():
                    self._set_stretch(self._learning[name], key, value)

    def _flat_stretches(self) -> list[Tensor]:
        """What the optimizer sees on this rank."""
        zero = self._zero
        flats: list[Tensor] = (
            zero.fp32_partitioned_groups_flat if self._splits_weights else zero.single_partition_of_fp32_groups
        )
        return flats

    def _common_state(self) -> dict[str, Tensor | None]:
        """Every key of the optimizer's state; its value where it is one for all elements, like a count of steps."""
        state = self._zero.optimizer.state.get(self._flat_stretches()[0], {})
        return {key: None if value.dim() else value for key, value in state.items() if value is not None}

    def _reset_optimizer_state(self, saved: dict[str, Any]) -> None:
        """Zeros of the kind that ``saved`` has: to an optimizer the same as no state yet."""
        example: dict[str, Tensor] = next(iter(saved.values()), {})
        for flat in self._flat_stretches():
            state = self._zero.optimizer.state[flat]
            for value in state.values():
                value.zero_()
            for key, value in example.items():
                if value.dim():
                    state.setdefault(key, torch.zeros_like(flat))
                else:
                    state[key] = value.clone()
        self._link_states()

    def _link_states(self) -> None:
        """Tell the parameters of stages 1 and 2 where their state is. DeepSpeed does so once, after the first group's
        first step, when the state of further groups is not there yet.
        """
        if self._splits_weights:
            return
        state = self._zero.optimizer.state
        for parameters, flat in zip(self._zero.bit16_groups, self._flat_stretches(), strict=True):
            if flat in state:
                self._deepspeed.utils.lazy_init_hp_params_optimizer_state(parameters, flat, state)

    def _set_stretch(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        if not self._splits_weights:
            self._deepspeed.utils.safe_set_full_optimizer_state(parameter, value, key)
            return
        # DeepSpeed's own function fails where the ranks' number does not divide the parameter's.
        length = parameter.ds_tensor.numel()  # type: ignore[attr-defined]  # ZeRO 3 put it there
        padded = nn.functional.pad(value.flatten(), (0, length * self._world.world_size - value.numel()))
        mine = padded[length * self._world.rank : length * (self._world.rank + 1)]
        self._deepspeed.utils.safe_set_local_optimizer_state(parameter, mine, key)
