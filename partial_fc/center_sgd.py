"""CenterSGD: stochastic gradient descent for the class centers of a PartialFC head.

Shape letters: R rows of this rank's class shard, S rows that took part in the step, T rows of one tile, D embedding
size.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor

from partial_fc.full_gradient import FullGradient
from partial_fc.full_sgd import full_sgd
from partial_fc.head import PartialFC
from partial_fc.host_centers import HostCenters
from partial_fc.kernels import tile_kernels_for
from partial_fc.momentum_buffer import momentum_buffer
from partial_fc.motion_state import load_motion, motion_state
from partial_fc.row_gradient import RowGradient
from partial_fc.stochastic_rounding import UPDATE, Rounding, rounding_key
from partial_fc.tiled_gradient import TiledGradient

TILE_ROWS, TILE_ROWS_ON_GPU = 4096, 65536  # where launching costs more than memory


class CenterSGD(torch.optim.Optimizer):
    """SGD with momentum and weight decay over ``head.centers``; any learning-rate scheduler drives it.

    With gradient g, center w, momentum buffer m, per step and row that took part in it:

        m <- momentum * m + (g + weight_decay * w)        w <- w - lr * m

    Over all centers that is torch.optim.SGD, to float32 rounding, but a step touches only rows that have a gradient or
    are still in motion: see :mod:`partial_fc.shared_motion`. A row at rest costs nothing, and only rows in motion have
    momentum in memory. Reading ``head.centers`` brings all of them to now.

    A sampled step is torch.optim.SGD on the sampled rows alone: all others rest, without decay, their momentum frozen
    until they take part again. Without a gradient a step does nothing.

    The gradient is ``head.row_gradient``, where micro-batches add up; ``zero_grad`` clears it, whatever
    ``set_to_none`` says. Rows are updated in place, tile by tile, with no second [R, D] temporary. No communication:
    each rank updates the rows it owns. ``state_dict`` holds the momentum of this rank's rows, the head's the centers
    and the number of steps; :func:`center_state` has all of it by global class id. A new optimizer starts without
    momentum, and so does one whose momentum was set to 0 in between.

    Raises ValueError for a negative lr, momentum or weight_decay, or a momentum of 1 and more.
    """

    def __init__(self, head: PartialFC, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 5e-4) -> None:
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not value >= 0.0:
                raise ValueError(f"CenterSGD {name} must be at least 0, got {value}")
        if momentum >= 1.0:
            raise ValueError(f"CenterSGD momentum must be below 1, or centers never come to rest; got {momentum}")
        head.bring_centers_to_now()
        super().__init__([head.stored_centers], {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.head = head
        if head.rows is not None:
            head.rows.drop_momentum()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the rows that have a gradient; closure: as in any torch optimizer."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradient = self.head.row_gradient
        if gradient is not None:
            group = self.param_groups[0]
            if isinstance(gradient, FullGradient):
                full_sgd(gradient, group["lr"], group["momentum"], group["weight_decay"])
            else:
                self._update(gradient, group)
            self.head.steps_taken += 1
            self.head.seen.take()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient of the centers."""
        self.head.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse everything but the centers: another optimizer trains the backbone. Raises ValueError."""
        if self.param_groups:
            raise ValueError("CenterSGD trains the centers of one head: give other parameters their own optimizer")
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """As of any torch optimizer; ``motion`` is the momentum of a head whose rows move on their own."""
        state = super().state_dict()
        if self.head.rows is not None:
            self.head.bring_centers_to_now()
            state["motion"] = motion_state(self.head.rows, self.head.class_shard)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What :meth:`state_dict` gave, after the head's own state was loaded."""
        motion = state_dict.get("motion")
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "motion"})
        for saved in state_dict["state"].values():
            if (buffer := saved.get("momentum_buffer")) is not None:  # torch gave it the centers' type
                centers = self.head.stored_centers
                self.state[centers]["momentum_buffer"] = buffer.to(centers.device, torch.float32, copy=True)
        if self.head.rows is not None and motion is not None:
            load_motion(self.head.rows, self.head.class_shard, [motion])

    def _update(self, gradient: RowGradient | TiledGradient, group: dict[str, Any]) -> None:
        head = self.head
        weights = head.stored_centers
        buffer = momentum_buffer(self, weights) if group["momentum"] != 0 else None
        step = float(group["lr"]), group["momentum"], group["weight_decay"]
        rounding = Rounding(rounding_key(head.seed, head.steps_taken, UPDATE), head.class_shard.start)
        if isinstance(gradient, TiledGradient):
            for start, tile in gradient.tiles():
                self._update_in_host_memory(buffer, None, start, tile, step, rounding)
            return
        values = gradient.values.contiguous()
        kernels = tile_kernels_for(weights, values, *([] if buffer is None else [buffer]))
        at_once = TILE_ROWS if values.device.type == "cpu" else TILE_ROWS_ON_GPU
        for start in range(0, len(values), at_once):
            stop = start + at_once
            rows = None if gradient.rows is None else gradient.rows[start:stop]
            if head.in_host_memory:
                self._update_in_host_memory(buffer, rows, start, values[start:stop], step, rounding)
            else:
                kernels.sgd_rows(weights, buffer, rows, start, values[start:stop], *step, rounding)

    def _update_in_host_memory(
        self,
        buffer: Tensor | None,
        rows: Tensor | None,
        start: int,
        values: Tensor,
        step: tuple[float, float, float],
        rounding: Rounding,
    ) -> None:
        """One tile, brought to where its gradient is, and taken back."""
        workspace, count = self.head.workspace, len(values)
        sources = [HostCenters(self.head.stored_centers.detach(), workspace)]
        if buffer is not None:
            sources.append(HostCenters(buffer, workspace, "brought momentum"))
        weights, *momentum = (source.bring(rows, start, count) for source in sources)
        numbers = torch.arange(start, start + count, device=values.device) if rows is None else rows
        of_tile = replace(rounding, classes=numbers + rounding.first_class)
        kernels = tile_kernels_for(weights, values, *momentum)
        kernels.sgd_rows(weights, momentum[0] if momentum else None, None, 0, values, *step, of_tile)
        for source, tile in zip(sources, (weights, *momentum), strict=True):
            source.take_back(rows, start, tile)
