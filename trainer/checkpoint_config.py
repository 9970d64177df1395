"""How often a run is saved, how it is written and which checkpoints stay."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

MEAN = "mean"


class CheckpointConfig(BaseModel):
    """A checkpoint is written every ``every_steps`` steps (0: not regularly), at the end, when stopped, and when a
    verification finds the best weights so far.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_steps: Annotated[int, Field(ge=0)] = 1000
    asynchronous: bool = True  # training waits for a copy only; it takes as much memory as the checkpoint
    keep: Annotated[int, Field(ge=1)] = 2  # the newest ones; older ones are deleted after a new one is complete
    keep_best: Annotated[int, Field(ge=0)] = 1  # the most accurate ones, besides
    best_by: str | None = None  # name of one of evaluation.pairs, or "mean" of all; None: the first

    @model_validator(mode="after")
    def _has_an_effect(self) -> "CheckpointConfig":
        if self.best_by is not None and self.keep_best == 0:
            raise ValueError("best_by has no effect with keep_best = 0: leave one of them out")
        return self

    def scored_pairs(self, names: list[str]) -> str | None:
        """What checkpoints are compared by: one of ``names``, the pair sets of the run, or "mean"; None without any.

        Raises ValueError for a ``best_by`` that is not among them.
        """
        if self.best_by is not None and self.best_by not in (*names, MEAN):
            raise ValueError(
                f"checkpoint.best_by '{self.best_by}' is none of evaluation.pairs: {', '.join(names)}, mean"
            )
        if not names or self.keep_best == 0:
            return None
        return self.best_by or names[0]
