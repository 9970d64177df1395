"""The optimizers of a run: the backbone's by name, CenterSGD for the class centers."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Beta = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]

CENTER_DECAY = 5e-4  # where weight_decay is AdamW's, which means something else
OF_ADAMW = ("betas", "eps")


class OptimizerConfig(BaseModel):
    """SGD or AdamW for the backbone; SGD, row by row, for the class centers in either case.

    The centers follow the schedule in proportion: ``center_lr`` is what they have where the backbone has ``lr``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Rate = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of SGD: backbone's and centers'
    weight_decay: Decay = 5e-4
    decay_norm_and_bias: bool = True  # False: weight decay for matrices and kernels only
    betas: tuple[Beta, Beta] = (0.9, 0.999)  # adamw
    eps: Rate = 1e-8  # adamw
    center_lr: Rate | None = None  # None: lr; adamw needs one of its own
    center_weight_decay: Decay | None = None  # None: weight_decay of sgd, 5e-4 beside adamw

    @model_validator(mode="after")
    def _every_key_is_read(self) -> "OptimizerConfig":
        if self.kind == "adamw":
            if self.center_lr is None:
                raise ValueError(
                    "optimizer.center_lr is missing: the class centers learn by SGD in any case, and AdamW's lr is far "
                    "too small for that; 0.1 is usual"
                )
            return self
        fields = type(self).model_fields
        # A resolved configuration repeats the defaults: only other values are somebody's wish.
        unread = [key for key in OF_ADAMW if getattr(self, key) != fields[key].default]
        if unread:
            raise ValueError(f"'{unread[0]}' has no meaning for kind 'sgd': leave it out or set kind = 'adamw'")
        return self

    @property
    def center_lr_share(self) -> float:
        """The centers' learning rate over the backbone's, at any step."""
        return 1.0 if self.center_lr is None else self.center_lr / self.lr

    @property
    def decay_of_centers(self) -> float:
        """Weight decay of CenterSGD."""
        if self.center_weight_decay is not None:
            return self.center_weight_decay
        return self.weight_decay if self.kind == "sgd" else CENTER_DECAY
