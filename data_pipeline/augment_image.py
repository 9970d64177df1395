"""One image augmented without DALI: the same arithmetic in float32, step by step, as the pipeline in
``decode_dali.py``, so that both give the same bits on the CPU. Only the blur's window can differ: for one sigma in a
thousand the two libraries' exponentials round differently, which moves a pixel by less than 0.0001 grey levels.

Shapes: h, w the picture's size, S the image size.
"""

import math

import numpy as np
from numpy.typing import NDArray

from data_pipeline.augmentation_draws import Draws
from data_pipeline.resample import WHOLE, Box, resample

_F = np.float32


def blur_windows(sigmas: NDArray[np.float32]) -> NDArray[np.int32]:
    """Taps of the Gaussian windows for these sigmas: three sigmas to each side."""
    return (2 * np.ceil(3 * sigmas) + 1).astype(np.int32)


def augment_image(
    picture: NDArray[np.uint8], image_size: int, draws: Draws | None, place: int
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """A picture [h, w, 3] -> [S, S, 3] in [0, 255], resized where it must be, augmented as image ``place`` of draws.

    uint8 where no pixel had to be computed, else float32 (not rounded).
    """
    if draws is None:
        return _scaled(picture, image_size, WHOLE)
    small = int(draws.small[place])
    pixels = _scaled(_scaled(picture, small, draws.boxes[place]), image_size, WHOLE)
    if draws.sigmas[place]:
        pixels = _blurred(pixels.astype(_F), draws.sigmas[place])
    return _recolored(pixels, draws.colors[place])


def _scaled(
    picture: NDArray[np.uint8] | NDArray[np.float32], size: int, box: Box
) -> NDArray[np.uint8] | NDArray[np.float32]:
    if picture.shape[:2] == (size, size) and np.array_equal(box, WHOLE):
        return picture
    return resample(picture, size, size, box)


def _blurred(pixels: NDArray[np.float32], sigma: np.float32) -> NDArray[np.float32]:
    window = _gaussian_window(sigma)
    for axis in (1, 0):
        pixels = _convolved(pixels, window, axis)
    return pixels


def _gaussian_window(sigma: np.float32) -> NDArray[np.float32]:
    """[taps] that add up to 1, rounded where DALI rounds."""
    reach = int(blur_windows(np.array(sigma))) // 2
    squares = np.arange(-reach, 0, dtype=_F) ** 2
    exponents = -(squares * (_F(0.5) / (sigma * sigma)))
    half = np.array([math.exp(exponent) for exponent in exponents], dtype=_F)
    scale = _F(1) / (np.add.accumulate(half)[-1] * _F(2) + _F(1))
    half *= scale
    return np.concatenate([half, [scale], half[::-1]], dtype=_F)


def _convolved(pixels: NDArray[np.float32], window: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Along one axis, the picture mirrored at its edge pixels."""
    reach, length = len(window) // 2, pixels.shape[axis]
    margins = [(reach, reach) if dimension == axis else (0, 0) for dimension in range(3)]
    padded = np.pad(pixels, margins, mode="reflect")
    total = np.zeros_like(pixels)
    for tap, weight in enumerate(window):
        part = padded[tap : tap + length] if axis == 0 else padded[:, tap : tap + length]
        total += weight * part
    return total


def _recolored(
    pixels: NDArray[np.uint8] | NDArray[np.float32], color: NDArray[np.float32]
) -> NDArray[np.uint8] | NDArray[np.float32]:
    if np.array_equal(color, np.eye(3, 4, dtype=_F)):
        return pixels
    red, green, blue = (pixels[..., [channel]].astype(_F) for channel in range(3))
    recolored: NDArray[np.float32] = red * color[:, 0] + green * color[:, 1] + blue * color[:, 2] + color[:, 3]
    np.clip(recolored, _F(0), _F(255), out=recolored)
    return recolored
