"""The loss over all class centers, by name."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from partial_fc import ArcFace, CombinedMargin, CosFace, SFace

Angle = Annotated[float, Field(gt=0, lt=3.1416)]  # rad
Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]

OF_ALL = {"loss", "scale", "tolerance", "sample_rate", "center_dtype", "center_memory"}
OF_LOSS = {
    "sface": {"slope", "a", "b"},
    "arcface": {"margin", "interclass_filter"},
    "cosface": {"margin", "interclass_filter"},
    "combined": {"m1", "m2", "m3", "interclass_filter"},
}


class HeadConfig(BaseModel):
    """Loss and sampling of the head; a key that the chosen loss would not read is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    loss: Literal["sface", "arcface", "cosface", "combined"] = "sface"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 64.0
    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 80.0  # sface
    a: Angle = 0.90  # sface: own centers farther than this are pulled
    b: Angle = 1.20  # sface: other centers nearer than this are pushed
    margin: Margin | None = None  # arcface (rad; 0.5) and cosface (0.4)
    m1: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0  # combined: cos(m1 * theta + m2) - m3
    m2: Margin = 0.0
    m3: Margin = 0.0
    interclass_filter: Annotated[float, Field(ge=-1, le=1)] | None = None  # negatives with a larger cosine are left out
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 1e-3
    sample_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    center_dtype: Literal["float32", "bfloat16"] = "float32"  # what centers are stored in; bfloat16: half the memory
    center_memory: Literal["device", "host"] = "device"  # where; host: rows that a step needs come to the device

    @model_validator(mode="after")
    def _every_key_is_read(self) -> "HeadConfig":
        unread = sorted(key for key in self.model_fields_set - OF_ALL - OF_LOSS[self.loss] if self._is_set(key))
        if unread:
            known = ", ".join(sorted(OF_LOSS[self.loss]))
            raise ValueError(f"'{unread[0]}' has no meaning for loss '{self.loss}', which reads {known}")
        return self

    def _is_set(self, key: str) -> bool:
        # A resolved configuration repeats the defaults of all losses: only other values are somebody's wish.
        return bool(getattr(self, key) != type(self).model_fields[key].default)

    def build(self) -> SFace | CombinedMargin:
        """The loss object."""
        if self.loss == "sface":
            return SFace(scale=self.scale, slope=self.slope, a=self.a, b=self.b)
        if self.loss == "arcface":
            margin = 0.5 if self.margin is None else self.margin
            return ArcFace(self.scale, margin, interclass_filter=self.interclass_filter)
        if self.loss == "cosface":
            margin = 0.4 if self.margin is None else self.margin
            return CosFace(self.scale, margin, interclass_filter=self.interclass_filter)
        return CombinedMargin(self.scale, self.m1, self.m2, self.m3, interclass_filter=self.interclass_filter)
