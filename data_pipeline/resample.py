"""Scaling a picture as DALI's ``fn.resize`` does on the CPU (linear, antialiased), bit for bit, without DALI.

A separable triangle filter in float32, one axis after the other. Where DALI leaves freedom (the order of the axes,
of the additions) this follows its source. Pillow's filter is the same but for its rounding between the axes, up to
one grey level, and the edges, which it does not continue.

Shapes: h, w the picture's size; n input pixels, S output pixels and K taps of one axis.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.float32]
Box = tuple[float, float, float, float] | NDArray[np.float32]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_F = np.float32


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis of a resize, in input pixels: output pixel x covers the input from ``start`` + x * ``scale``."""

    size: int  # n
    output: int  # S
    start: np.float32
    scale: np.float32
    density: np.float32  # 1 / radius of the filter
    taps: int  # K
    low: int  # the input pixels in [low, high) suffice
    high: int


def resample(picture: Pixels, height: int, width: int, box: Box = WHOLE) -> NDArray[np.float32]:
    """Scale the part ``box`` (top, left, bottom, right, as shares of h and w) of a picture [h, w, C].

    Returns [height, width, C] float32, not rounded. Outside the picture its edge pixels are repeated.
    """
    top, left, bottom, right = map(_F, box)
    rows = _axis(picture.shape[0], height, top, bottom)
    columns = _axis(picture.shape[1], width, left, right)
    # The second pass counts from the first pixel that it needs: in float32 that matters.
    if _vertical_first(rows, columns):
        return _pass(_pass(picture, rows, 0, 0), columns, columns.low, 1)
    return _pass(_pass(picture, columns, 0, 1), rows, rows.low, 0)


def _axis(size: int, output: int, start: np.float32, end: np.float32) -> _Axis:
    start, end = start * _F(size), end * _F(size)
    scale = (end - start) / _F(output)
    density = _F(2) / (_F(2) * max(_F(1), scale))
    taps = int(np.ceil(_F(2) / density))
    low = int(np.floor(start - _F(1) / density))
    high = int(np.ceil(end - _F(1) / density + _F(taps)))
    return _Axis(size, output, start, scale, density, taps, min(max(low, 0), size), min(max(high, 0), size))


def _vertical_first(rows: _Axis, columns: _Axis) -> bool:
    """DALI's estimate of which order is cheaper."""

    def cost(pixels: int, axis: _Axis, weight: float) -> np.float32:
        return _F(weight) * _F(axis.taps * pixels) + _F(3 * pixels)

    area = rows.output * columns.output
    horizontal = cost((rows.high - rows.low) * columns.output, columns, 1.4) + cost(area, rows, 1.0)
    vertical = cost((columns.high - columns.low) * rows.output, rows, 1.0) + cost(area, columns, 1.4)
    return bool(vertical < horizontal)


def _pass(pixels: Pixels, axis: _Axis, origin: int, dimension: int) -> NDArray[np.float32]:
    """Scale one dimension: a weighted sum of K input pixels for each output pixel, added up tap by tap."""
    first = axis.start - _F(origin) + (_F(0.5) * axis.scale - _F(0.5) - _F(1) / axis.density)
    begins = np.arange(axis.output, dtype=_F) * axis.scale + first  # [S]
    nearest = np.ceil(begins)
    places = ((nearest - begins)[:, None] + np.arange(axis.taps, dtype=_F)) * axis.density  # [S, K], in [0, 2]
    weights = np.where(places < 1, places, _F(2) - places).clip(_F(0), None)
    weights /= np.add.accumulate(weights, axis=1)[:, -1:]
    sources = (nearest.astype(np.int64)[:, None] + np.arange(axis.taps) + origin).clip(0, axis.size - 1)
    shape = (-1, 1, 1) if dimension == 0 else (1, -1, 1)
    total: NDArray[np.float32] = pixels.take(sources[:, 0], axis=dimension) * weights[:, 0].reshape(shape)
    for tap in range(1, axis.taps):
        total += pixels.take(sources[:, tap], axis=dimension) * weights[:, tap].reshape(shape)
    return total
