"""What a run does about failures: steps that are not finite, ranks that are gone, stuck or slow."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(ge=0.5, allow_inf_nan=False)]


class FailureConfig(BaseModel):
    """Limits and policies. A run may be continued with others: what was learned before stays what it is.

    non_finite: of NaN and infinite losses and gradients, see :mod:`trainer.non_finite`. "stop" ends the run at the
    first one; "skip" passes over such steps and ends it after ``max_skipped_in_a_row``; "rollback" then goes back to
    the newest checkpoint instead, ``max_rollbacks`` times in a row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    non_finite: Literal["stop", "skip", "rollback"] = "rollback"
    max_skipped_in_a_row: Annotated[int, Field(ge=1)] = 10
    max_rollbacks: Annotated[int, Field(ge=1)] = 3  # without a checkpoint of a good step in between
    join_seconds: Seconds = 50.0  # a rank that has not come so long after another one is missing
    silence_seconds: Seconds = 30.0  # a rank not heard of for so long is gone: killed, frozen, or its link is lost
    # No rank gets on within a training step for so long: the run is stuck. Opening data, the first step, evaluation and
    # checkpoints may last longer: there, ranks wait for each other for run.timeout_seconds.
    stall_seconds: Seconds = 300.0
    # A rank is slow whose own time of a step is so many times the median of the others.
    straggler_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.5

    @model_validator(mode="after")
    def _every_key_is_read(self) -> "FailureConfig":
        unread = {"stop": ("max_skipped_in_a_row", "max_rollbacks"), "skip": ("max_rollbacks",), "rollback": ()}
        for key in unread[self.non_finite]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"'{key}' has no meaning for non_finite = '{self.non_finite}': leave it out")
        return self
