"""Learning rate as a pure function of the step: nothing to save, nothing to restore wrongly."""

from bisect import bisect_right
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ScheduleConfig(BaseModel):
    """Warm-up, then decay. Lengths count in ``unit`` (optimizer steps or epochs).

    kind "polynomial": lr * (1 - progress) ** power down to 0 at the last step; "multistep": lr * gamma ** (milestones
    passed); "constant": lr. warmup: linear from 0 over that many units, on top of any kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["polynomial", "multistep", "constant"] = "polynomial"
    unit: Literal["step", "epoch"] = "step"
    warmup: Annotated[float, Field(ge=0)] = 0.0
    power: Annotated[float, Field(gt=0)] = 2.0
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1

    @model_validator(mode="after")
    def _milestones_fit_the_kind(self) -> "ScheduleConfig":
        if (self.kind == "multistep") != bool(self.milestones):
            raise ValueError("milestones and kind = 'multistep' belong together: give both or neither")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {list(self.milestones)}")
        return self


def learning_rate_schedule(
    config: ScheduleConfig, *, base: float, total_steps: int, steps_per_epoch: int
) -> Callable[[int], float]:
    """``lr(step)`` for step 0 .. total_steps - 1 (the step about to be taken).

    During warm-up of w steps: base * (step + 1) / w. After it, polynomial:
    base * (1 - (step - w) / (total_steps - w)) ** power; multistep: base * gamma ** #{m: m <= step}.
    Raises ValueError when the warm-up is as long as the run or longer.
    """
    unit_steps = steps_per_epoch if config.unit == "epoch" else 1
    warmup = round(config.warmup * unit_steps)
    if warmup and warmup >= total_steps:
        raise ValueError(f"schedule.warmup lasts {warmup} of {total_steps} steps: make it shorter or train longer")
    milestones = [round(milestone * unit_steps) for milestone in config.milestones]

    def learning_rate(step: int) -> float:
        if step < warmup:
            return base * (step + 1) / warmup
        if config.kind == "polynomial":
            left = 1.0 - (step - warmup) / (total_steps - warmup)
            return float(base * left**config.power)
        return float(base * config.gamma ** bisect_right(milestones, step))

    return learning_rate
