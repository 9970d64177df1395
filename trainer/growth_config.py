"""The ``[growth]`` table: which run a new one grows from, and how."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainer.absolute_path import AbsolutePath


class GrowthConfig(BaseModel):
    """Read once, when the run's folder holds no checkpoint yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_: AbsolutePath = Field(alias="from", description="run folder (its newest checkpoint) or checkpoint folder")
    identities: AbsolutePath | None = Field(
        default=None, description="names of that run's identities, where its folder has none: lines 'identity<tab>name'"
    )
    momentum: Literal["keep", "empty"] = Field(
        default="keep", description="of the backbone and of the centers that stay; new centers have none either way"
    )
    new_centers: Literal["mean_embedding", "random"] = "mean_embedding"
    images_per_identity: Annotated[int, Field(ge=1, description="embedded for a mean, at most")] = 8
    batch_size: Annotated[int, Field(ge=1, description="images per forward pass, of each rank")] = 64

    @model_validator(mode="after")
    def _every_key_is_read(self) -> Self:
        default = type(self).model_fields["images_per_identity"].default
        if self.new_centers == "random" and self.images_per_identity != default:
            raise ValueError("images_per_identity has no meaning for new_centers = 'random': leave it out")
        return self
