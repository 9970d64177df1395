"""What happens to which image: drawn from (seed, epoch, index) alone, so it is the same on any number of ranks and
after a resume. Each parameter has a random stream of its own: switching an augmentation on leaves the others' draws.

Shapes: m images, S image size in pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.augmentation import Augmentation, Range
from data_pipeline.permutation import uniforms
from data_pipeline.purposes import (
    BLUR,
    BLUR_SIGMA,
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    CROP,
    CROP_DOWN,
    CROP_RIGHT,
    CROP_SCALE,
    DOWN_UP,
    DOWN_UP_SCALE,
    FLIP,
    GRAYSCALE,
    HUE,
    SATURATION,
)
from data_pipeline.resample import WHOLE

_LUMA = (0.299, 0.587, 0.114)
_MIDDLE = 127.5  # contrast changes about this grey value
# RGB to YIQ and back: turning (I, Q) turns the hue and keeps the luma.
_YIQ = np.array([_LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)])
_RGB = np.linalg.inv(_YIQ)


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """The augmentation of m images, flips aside.

    boxes: [m, 4] float32, top, left, bottom and right of the crop as shares of the picture.
    small: [m] int32, side in pixels to scale down to (S: not at all). sigmas: [m] float32, of the blur in pixels
    (0: none). colors: [m, 3, 4] float32, matrix and offset that take (R, G, B) in [0, 255] to new ones.
    """

    boxes: NDArray[np.float32]
    small: NDArray[np.int32]
    sigmas: NDArray[np.float32]
    colors: NDArray[np.float32]

    def moved(self, image_size: int) -> NDArray[np.bool_]:
        """[m]: whether an image of the right size must be resampled."""
        cropped: NDArray[np.bool_] = (self.boxes != np.array(WHOLE, np.float32)).any(axis=1)
        moved: NDArray[np.bool_] = cropped | (self.small != image_size)
        return moved

    def recolored(self) -> NDArray[np.bool_]:
        """[m]: whether an image's colours change."""
        changed: NDArray[np.bool_] = (self.colors != np.eye(3, 4, dtype=np.float32)).any(axis=(1, 2))
        return changed


def draw_flips(probability: float, indices: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.bool_]:
    """Whether each image [m] is mirrored in ``epoch``."""
    return _happens(probability, uniforms(indices, seed, epoch, FLIP))


def draw(augmentation: Augmentation, indices: NDArray[np.int64], seed: int, epoch: int, image_size: int) -> Draws:
    """The augmentation in ``epoch``, flips aside, of the images at positions ``indices`` [m] of the data set."""

    def happens(probability: float, purpose: int) -> NDArray[np.bool_]:
        return _happens(probability, uniforms(indices, seed, epoch, purpose))

    def between(bounds: Range, purpose: int) -> NDArray[np.float64]:
        low, high = bounds
        return low + (high - low) * uniforms(indices, seed, epoch, purpose)

    def around(middle: float, reach: float, purpose: int) -> NDArray[np.float64]:
        return between((middle - reach, middle + reach), purpose)

    count, this = len(indices), augmentation
    half = np.where(happens(this.crop, CROP), between(this.crop_scale, CROP_SCALE), 1.0)[:, None] / 2
    shift = np.stack([around(0, this.crop_shift, purpose) for purpose in (CROP_DOWN, CROP_RIGHT)], axis=1)
    center = 0.5 + np.where(happens(this.crop, CROP)[:, None], shift, 0.0)
    small = np.rint(image_size * between(this.down_up_scale, DOWN_UP_SCALE)).clip(1, image_size)
    factors = (
        around(1, this.brightness, BRIGHTNESS),
        around(1, this.contrast, CONTRAST),
        around(1, this.saturation, SATURATION),
        np.deg2rad(around(0, this.hue, HUE)),
    )
    colors = np.broadcast_to(np.eye(3, 4), (count, 3, 4))
    colors = np.where(happens(this.color, COLOR)[:, None, None], _color_matrices(*factors), colors)
    gray = sum(weight * colors[:, [channel]] for channel, weight in enumerate(_LUMA))
    colors = np.where(happens(this.grayscale, GRAYSCALE)[:, None, None], gray, colors)
    return Draws(
        boxes=np.concatenate([center - half, center + half], axis=1).astype(np.float32),
        small=np.where(happens(this.down_up, DOWN_UP), small, image_size).astype(np.int32),
        sigmas=np.where(happens(this.blur, BLUR), between(this.blur_sigma, BLUR_SIGMA), 0).astype(np.float32),
        colors=colors.astype(np.float32),
    )


def _happens(probability: float, drawn: NDArray[np.float64]) -> NDArray[np.bool_]:
    # From the upper end: at 0.5 it is the hash's first bit, as flips have always been drawn.
    happens: NDArray[np.bool_] = drawn >= 1 - probability
    return happens


def _color_matrices(
    brightness: NDArray[np.float64],
    contrast: NDArray[np.float64],
    saturation: NDArray[np.float64],
    hue: NDArray[np.float64],
) -> NDArray[np.float64]:
    """[m, 3, 4]: brightness, then contrast, then saturation, then hue (rad); all [m].

        x -> H S (contrast * brightness * x + (1 - contrast) * 127.5)

    Saturation S and hue H leave grey values, so the offset passes through them unchanged.
    """
    turn = np.zeros((len(hue), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * np.cos(hue)
    turn[:, 2, 1] = saturation * np.sin(hue)
    turn[:, 1, 2] = -turn[:, 2, 1]
    matrices = _RGB @ turn @ _YIQ * (contrast * brightness)[:, None, None]
    offsets = np.repeat(((1 - contrast) * _MIDDLE)[:, None, None], 3, axis=1)
    return np.concatenate([matrices, offsets], axis=2)
