"""How long silence may last before a rank counts as lost, and from when a rank counts as slow."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0.5, allow_inf_nan=False)]


class FailureConfig(BaseModel):
    """What a run does when something fails. None of these keys touches what is learned."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    join_seconds: Seconds = 50.0  # a rank that has not come so long after another one is missing
    silence_seconds: Seconds = 30.0  # a rank not heard of for so long is gone: killed, frozen, or its link is lost
    # No rank gets on within a training step for so long: the run is stuck. Opening data, the first step, evaluation and
    # checkpoints may last longer: there, ranks wait for each other for run.timeout_seconds.
    stall_seconds: Seconds = 300.0
    # A rank is slow whose own time of a step is so many times the median of the others.
    straggler_ratio: Annotated[float, Field(gt=1, allow_inf_nan=False)] = 1.5
