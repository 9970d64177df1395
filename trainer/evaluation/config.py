"""Configuration of verification during a run."""

from pydantic import BaseModel, ConfigDict, Field

from trainer.absolute_path import AbsolutePath


class EvaluationConfig(BaseModel):
    """Which verification sets are evaluated, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: tuple[AbsolutePath, ...] = Field(default=(), description="verification sets (.bin)")
    at_start: bool = Field(default=False, description="also before the first step: the untrained network's floor")
    every_steps: int = Field(default=0, ge=0, description="0: at the end only")
    batch_size: int = Field(default=64, gt=0, description="images per forward pass")
