"""How long a run is and how its steps are taken."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainConfig(BaseModel):
    """Length of the run, who spreads the backbone over the ranks, and how a step is taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    engine: Literal["ddp", "deepspeed"] = "ddp"
    micro_batches: Annotated[int, Field(ge=1)] = 1  # pieces of a rank's batch of one step: less memory, more time
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # longest gradient of the backbone
    compile: bool = False  # the backbone, by torch.compile

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of train.steps and train.epochs")
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole run, at least 1."""
        return self.steps if self.steps is not None else max(1, round((self.epochs or 0) * steps_per_epoch))
