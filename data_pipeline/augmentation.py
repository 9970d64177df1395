"""How training images are augmented: probabilities and ranges.

What happens to an image, in this order: crop, down-up-sampling, blur, colour, grayscale, flip.
"""

import math
from dataclasses import dataclass

from data_pipeline.errors import DataError

MAX_SIGMA = 10.0  # pixels; its window of 61 taps covers half a face
Range = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Each augmentation has a probability, drawn anew for every image and epoch; all but the flip are off by default.

    The ranges' defaults keep a face recognisable: they are meant for aligned faces of 112 pixels.

    flip: probability of mirroring left and right.
    crop: probability of taking a part of the picture, scaled to the image size. Its side is a share of the picture's
        drawn from ``crop_scale`` (above 1 it zooms out); its centre lies up to ``crop_shift`` of the picture's side
        away from the picture's, in both directions. Outside the picture its edge pixels are repeated.
    down_up: probability of a low resolution: scaled down to a share of the image size drawn from ``down_up_scale``
        and up again.
    blur: probability of a Gaussian blur of ``blur_sigma`` pixels (at the image size).
    color: probability of changing brightness, contrast and saturation by factors in [1 - x, 1 + x], and turning the
        hue by up to ``hue`` degrees either way.
    grayscale: probability of grey values (luma) in all three channels.

    Raises:
        DataError: a probability outside [0, 1] or an impossible range.
    """

    flip: float = 0.5
    crop: float = 0.0
    crop_scale: Range = (0.85, 1.0)
    crop_shift: float = 0.04
    down_up: float = 0.0
    down_up_scale: Range = (0.25, 0.75)
    blur: float = 0.0
    blur_sigma: Range = (0.4, 1.5)
    color: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 8.0
    grayscale: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "crop", "down_up", "blur", "color", "grayscale"):
            _check(name, getattr(self, name), 0.0, 1.0, "a probability")
        _check_range("crop_scale", self.crop_scale, 0.1, 2.0, "shares of the picture's side")
        _check("crop_shift", self.crop_shift, 0.0, 0.5, "a share of the picture's side")
        _check_range("down_up_scale", self.down_up_scale, 0.05, 1.0, "shares of the image size")
        _check_range("blur_sigma", self.blur_sigma, 0.1, MAX_SIGMA, "pixels")
        for name in ("brightness", "contrast", "saturation"):
            _check(name, getattr(self, name), 0.0, 1.0, "the largest change of a factor")
        _check("hue", self.hue, 0.0, 180.0, "degrees")

    @property
    def resamples(self) -> bool:
        """Whether pixels may come from other places."""
        return self.crop > 0 or self.down_up > 0

    @property
    def recolors(self) -> bool:
        """Whether colours may change."""
        return self.color > 0 or self.grayscale > 0

    @property
    def only_flips(self) -> bool:
        """Whether nothing but the flip can happen."""
        return not (self.resamples or self.recolors or self.blur > 0)


def _check(name: str, value: float, low: float, high: float, meaning: str) -> None:
    # Not (low <= value <= high) catches NaN too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise DataError(f"augmentation: {name} is {value!r}: give {meaning} in [{low:g}, {high:g}]")


def _check_range(name: str, value: Range, low: float, high: float, meaning: str) -> None:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise DataError(f"augmentation: {name} is {value!r}: give two numbers, the lowest and the highest")
    for bound in value:
        _check(name, bound, low, high, meaning)
    if not value[0] <= value[1] or not all(map(math.isfinite, value)):
        raise DataError(f"augmentation: {name} is {list(value)}: the lowest comes first")
