"""A sheet of flat shapes on a turned head: curves through points, seen under yaw and pitch, aligned as face crops are.

Shapes: n points of a curve, k control points. Lengths as in `synthetic_traits`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Colour = tuple[int, int, int]

# Where ArcFace crops have the eyes, the tip of the nose and the corners of the mouth.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
HEAD_RADII = (47.0, 64.0, 44.0)  # the ellipsoid on which features lie, around (0, -4, -HEAD_RADII[2])
STEPS = 6  # points per control point of a curve


@lru_cache(maxsize=64)
def _curve_matrix(k: int, closed: bool) -> Points:
    """Catmull-Rom interpolation as a matrix [n, k]: a curve is linear in its control points."""
    segments = k if closed else k - 1
    t = np.arange(STEPS) / STEPS
    weights = 0.5 * np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2])
    matrix = np.zeros((segments * STEPS + (not closed), k))
    for segment in range(segments):
        rows = slice(segment * STEPS, (segment + 1) * STEPS)
        for neighbour in range(4):
            column = segment + neighbour - 1
            matrix[rows, column % k if closed else min(max(column, 0), k - 1)] += weights[neighbour]
    if not closed:
        matrix[-1, -1] = 1.0
    return matrix


def curve(controls: list[tuple[float, float]], closed: bool = False) -> Points:
    """A smooth curve [n, 2] through `controls` [k, 2]."""
    points: Points = _curve_matrix(len(controls), closed) @ np.array(controls)
    return points


_CIRCLE = np.stack([np.cos(np.linspace(0, 2 * np.pi, 18)[:-1]), np.sin(np.linspace(0, 2 * np.pi, 18)[:-1])], axis=1)


def ellipse(x: float, y: float, half_width: float, half_height: float) -> Points:
    """An ellipse as a polygon [17, 2]."""
    return _CIRCLE * (half_width, half_height) + (x, y)


def surface(points: Points) -> Points:
    """Depth [n] of the face under points [n, 2]; flat and far back outside of it."""
    x, y = points[:, 0] / HEAD_RADII[0], (points[:, 1] + 4.0) / HEAD_RADII[1]
    return HEAD_RADII[2] * (np.sqrt(np.maximum(1.0 - x * x - y * y, 0.01)) - 1.0)


@dataclass(frozen=True)
class Shape:
    """One flat shape: rows [start, stop) of the sketch's points, filled, or a line of `width`, or a soft shadow."""

    start: int
    stop: int
    kind: str  # "fill", "line" or "shade"
    colour: tuple[int, ...]  # RGB or RGBA; one grey value for a shade, 128 changing nothing
    width: float = 0.0


class Sketch:
    """Collects shapes in face coordinates, in drawing order; `project` turns the head and gives image coordinates."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self._points: list[Points] = []
        self._depths: list[Points] = []  # [n] each; NaN where a point lies on the face
        self._lifts: list[float] = []

    def _add(self, points: Points, depth: float | Points, lift: float) -> tuple[int, int]:
        start = self.shapes[-1].stop if self.shapes else 0
        self._points.append(points)
        self._depths.append(np.full(len(points), depth) if isinstance(depth, float) else depth)
        self._lifts.append(lift)
        return start, start + len(points)

    def fill(
        self,
        points: Points,
        colour: tuple[int, ...],
        *,
        lift: float = 0.0,
        depth: float | Points = math.nan,
    ) -> None:
        """A filled polygon on the face, `lift` above it, or at a `depth` of its own, a number or [n]."""
        self.shapes.append(Shape(*self._add(points, depth, lift), "fill", colour))

    def line(self, points: Points, colour: tuple[int, ...], width: float, *, lift: float = 0.0) -> None:
        """An open line, `width` in template pixels."""
        self.shapes.append(Shape(*self._add(points, math.nan, lift), "line", colour, width))

    def shade(self, points: Points, grey: float, *, lift: float = 0.0) -> None:
        """A soft shadow (grey below 128) or highlight (above)."""
        self.shapes.append(Shape(*self._add(points, math.nan, lift), "shade", (int(grey),)))

    def project(self, landmarks: Points, yaw: float, pitch: float) -> Points:
        """Turn the head by `yaw` and `pitch` (radians) and align its five `landmarks` [5, 3] to TEMPLATE.

        Returns all points [n, 2] in pixels of the template.
        """
        cos_yaw, sin_yaw, cos_pitch, sin_pitch = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        turn = np.array(  # [3, 2]: rotation about y, then x, then orthographic projection
            [[cos_yaw, sin_yaw * sin_pitch], [0.0, cos_pitch], [sin_yaw, -cos_yaw * sin_pitch]]
        )
        points, depth = np.concatenate(self._points), np.concatenate(self._depths)
        depth = np.where(np.isnan(depth), surface(points), depth)
        depth += np.repeat(self._lifts, [len(part) for part in self._points])
        flat = np.concatenate([np.column_stack([points, depth]), landmarks]) @ turn
        return _aligned(flat[:-5], flat[-5:])


def _aligned(points: Points, landmarks: Points) -> Points:
    """The least-squares similarity from `landmarks` to TEMPLATE, applied to `points`.

    As complex numbers: q = a p + b with a = sum(conj(p) q) / sum(|p|^2) about the means.
    """
    source, target = landmarks @ (1, 1j), TEMPLATE @ (1, 1j)
    source_mean, target_mean = source.mean(), target.mean()
    a = np.vdot(source - source_mean, target - target_mean) / np.vdot(source - source_mean, source - source_mean)
    moved = a * (points @ (1, 1j) - source_mean) + target_mean
    return np.stack([moved.real, moved.imag], axis=1)
