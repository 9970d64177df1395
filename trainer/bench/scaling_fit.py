"""Straight lines: the exponent of a power law on logarithms, and fixed cost plus cost per unit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PowerFit:
    """y = factor * x ** slope by least squares on logarithms; error: standard error of the slope, NaN of two points."""

    slope: float
    error: float
    factor: float
    points: int

    def at(self, x: float) -> float:
        """The law's y."""
        return float(self.factor * x**self.slope)


@dataclass(frozen=True)
class AffineFit:
    """y = fixed + each * x, by least squares of relative errors; spread: their root mean square."""

    fixed: float
    each: float
    spread: float


def fit_power(xs: Sequence[float], ys: Sequence[float]) -> PowerFit | None:
    """None for fewer than two different x, or values that are not positive.

    slope = S_xy / S_xx on logarithms; its standard error is sqrt(residual sum of squares / (n - 2) / S_xx).
    """
    if len(set(xs)) < 2 or min(*xs, *ys) <= 0:
        return None
    logs = [(math.log(x), math.log(y)) for x, y in zip(xs, ys, strict=True)]
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    sum_xx = sum((x - mean_x) ** 2 for x, _ in logs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum_xx
    residuals = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in logs)
    error = math.sqrt(residuals / (len(logs) - 2) / sum_xx) if len(logs) > 2 else math.nan
    return PowerFit(slope, error, math.exp(mean_y - slope * mean_x), len(logs))


def fit_affine(xs: Sequence[float], ys: Sequence[float]) -> AffineFit | None:
    """None for fewer than two different x, or values that are not positive.

    Minimises the sum of ((fixed + each * x - y) / y) ** 2: small sizes count as much as large ones.
    """
    if len(set(xs)) < 2 or min(*xs, *ys) <= 0:
        return None
    # In the unknowns fixed and each, the rows are (1/y, x/y) and the right-hand side 1.
    rows = [(1 / y, x / y) for x, y in zip(xs, ys, strict=True)]
    aa, ab, bb = sum(a * a for a, _ in rows), sum(a * b for a, b in rows), sum(b * b for _, b in rows)
    ra, rb = sum(a for a, _ in rows), sum(b for _, b in rows)
    determinant = aa * bb - ab * ab
    fixed, each = (ra * bb - rb * ab) / determinant, (rb * aa - ra * ab) / determinant
    spread = math.sqrt(sum((fixed * a + each * b - 1) ** 2 for a, b in rows) / len(rows))
    return AffineFit(fixed, each, spread)
