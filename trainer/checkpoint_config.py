"""How often a run is saved and how many checkpoints stay."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class CheckpointConfig(BaseModel):
    """A checkpoint is written every ``every_steps`` steps (0: only at the end or when stopped)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_steps: Annotated[int, Field(ge=0)] = 1000
    keep: Annotated[int, Field(ge=1)] = 2  # the newest ones; older ones are deleted after a new one is complete
