"""What a run does about steps whose loss or gradient is not finite."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class FailureConfig(BaseModel):
    """The policy for NaN and infinite losses and gradients; see :mod:`trainer.non_finite`.

    "stop" ends the run at the first one; "skip" passes over such steps and ends it after ``max_skipped_in_a_row``;
    "rollback" then goes back to the newest checkpoint instead, ``max_rollbacks`` times in a row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    non_finite: Literal["stop", "skip", "rollback"] = "rollback"
    max_skipped_in_a_row: Annotated[int, Field(ge=1)] = 10
    max_rollbacks: Annotated[int, Field(ge=1)] = 3  # without a checkpoint of a good step in between

    @model_validator(mode="after")
    def _every_key_is_read(self) -> "FailureConfig":
        unread = {"stop": ("max_skipped_in_a_row", "max_rollbacks"), "skip": ("max_rollbacks",), "rollback": ()}
        for key in unread[self.non_finite]:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"'{key}' has no meaning for non_finite = '{self.non_finite}': leave it out")
        return self
