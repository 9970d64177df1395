"""Where a run's curves go besides metrics.jsonl."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]


class WandbConfig(BaseModel):
    """A run at Weights & Biases. The API key is not ours to know: W&B's environment variable or netrc holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Text
    entity: Text | None = None  # user or team; None: the key's own
    name: Text | None = None  # of the run; None: the name of its folder
    tags: tuple[Text, ...] = ()
    mode: Literal["online", "offline"] = "online"  # offline: to be uploaded later with "wandb sync"


class LogConfig(BaseModel):
    """How often a line goes to metrics.jsonl and the log, and who else gets it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_steps: Annotated[int, Field(ge=1)] = 10
    tensorboard: bool = False
    wandb: WandbConfig | None = None
