"""The table ``data.augmentation``: what happens to training images, see data_pipeline/augmentation.py."""

from pydantic import BaseModel, ConfigDict, model_validator

from data_pipeline import Augmentation

Range = tuple[float, float]


class AugmentationConfig(BaseModel):
    """Probabilities of the augmentations, 0 being off, and their ranges."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = 0.5  # data.flip = false switches it off
    crop: float = 0.0
    crop_scale: Range = (0.85, 1.0)  # shares of the picture's side
    crop_shift: float = 0.04  # at most, a share of the picture's side
    down_up: float = 0.0
    down_up_scale: Range = (0.25, 0.75)  # shares of image_size
    blur: float = 0.0
    blur_sigma: Range = (0.4, 1.5)  # pixels
    color: float = 0.0
    brightness: float = 0.2  # factors in [1 - x, 1 + x]
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 8.0  # degrees, at most
    grayscale: float = 0.0

    @model_validator(mode="after")
    def _in_range(self) -> "AugmentationConfig":
        self.build()
        return self

    def build(self) -> Augmentation:
        """The augmentation object. Raises DataError, a ValueError, for a value out of range."""
        return Augmentation(**self.model_dump())
