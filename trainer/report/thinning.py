"""Fewer points per curve: a page has about a thousand pixels, a run may have a million steps.

N: values logged. P: points kept, at most ``points``.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POINTS = 600

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve of P points; ``thinned`` says whether each stands for several values.

    x, mean, low, high: [P]; low and high are the smallest and largest value of a point's bin.
    """

    x: Values
    mean: Values
    low: Values
    high: Values
    thinned: bool


def thin(x: Values, y: Values, points: int = POINTS) -> Curve:
    """Mean, minimum and maximum of y in at most ``points`` bins of equally many neighbours.

    x, y: [N]. Values of y that are not finite are left out; without any finite value the curve is empty.
    """
    finite = np.isfinite(y) & np.isfinite(x)
    x, y = x[finite], y[finite]
    if y.size <= points:
        return Curve(x=x, mean=y, low=y, high=y, thinned=False)
    starts = np.linspace(0, y.size, points, endpoint=False).astype(np.int64)
    counts = np.diff(np.append(starts, y.size))
    return Curve(
        x=np.add.reduceat(x, starts) / counts,
        mean=np.add.reduceat(y, starts) / counts,
        low=np.minimum.reduceat(y, starts),
        high=np.maximum.reduceat(y, starts),
        thinned=True,
    )


def thin_stack(x: Values, layers: list[Values], points: int = POINTS) -> tuple[Values, list[Values]]:
    """Bin several columns together, so that they can be stacked: lines that lack every layer are left out and a
    single missing layer counts as zero.
    """
    known = np.any([np.isfinite(layer) for layer in layers], axis=0)
    filled = [np.nan_to_num(layer[known], nan=0.0) for layer in layers]
    curves = [thin(x[known], layer, points) for layer in filled]
    return curves[0].x, [curve.mean for curve in curves]


def spread_evenly(size: int, points: int = POINTS) -> NDArray[np.int64]:
    """At most ``points`` positions of 0 .. size-1, evenly spread, first and last included."""
    if size <= points:
        return np.arange(size)
    return np.unique(np.linspace(0, size - 1, points).round().astype(np.int64))
