"""What hides a part of a synthetic face in some images: a hat, dark glasses, a mask. None of it tells the identity."""

import numpy as np

from data_pipeline.synthetic_sketch import Colour, Sketch, curve
from data_pipeline.synthetic_traits import Traits

HAT, DARK_GLASSES, MASK = 0.08, 0.05, 0.04  # shares of the images


def draw_occlusion(sketch: Sketch, t: Traits, generator: np.random.Generator) -> None:
    """Adds at most one thing worn over the face."""
    chance = generator.random()
    r, g, b = generator.integers(10, 240, size=3).tolist()
    if chance < HAT:
        _hat(sketch, t, (r, g, b), generator)
    elif chance < HAT + DARK_GLASSES:
        _dark_glasses(sketch, t, (r // 6, g // 6, b // 6), generator)
    elif chance < HAT + DARK_GLASSES + MASK:
        _mask(sketch, t, (r, g, b))


def _hat(sketch: Sketch, t: Traits, colour: Colour, generator: np.random.Generator) -> None:
    brim = generator.uniform(-40.0, -32.0)
    w = t.head_width + 5.0
    crown = curve(
        [
            (-w, brim + 1),
            (-w * 0.96, -52.0),
            (-w * 0.5, -82.0),
            (w * 0.5, -82.0),
            (w * 0.96, -52.0),
            (w, brim + 1),
            (0.0, brim - 4),
        ],
        closed=True,
    )
    sketch.fill(crown, colour, depth=-22.0)
    edge = [(-w - 1, brim), (0.0, brim - 6), (w + 1, brim), (w, brim + 5), (0.0, brim - 1), (-w, brim + 5)]
    sketch.fill(curve(edge, closed=True), (colour[0] * 2 // 3, colour[1] * 2 // 3, colour[2] * 2 // 3), depth=-14.0)
    sketch.shade(np.array([(-w, brim + 2), (w, brim + 2), (w * 0.9, brim + 10), (-w * 0.9, brim + 10)]), 88)


def _dark_glasses(sketch: Sketch, t: Traits, colour: Colour, generator: np.random.Generator) -> None:
    size = generator.uniform(10.0, 12.5)
    for side in (-1.0, 1.0):
        x, y = t.eye_spacing, t.eye_y + 1.5
        rim = [
            (x - size, y - 3),
            (x, y - size * 0.72),
            (x + size, y - 4),
            (x + size * 0.8, y + 5),
            (x, y + size * 0.75),
            (x - size * 0.8, y + 5),
        ]
        sketch.fill(curve(rim, closed=True) * (side, 1.0), colour, lift=8.0)
        sketch.line(
            np.array([(side * (x + size), y - 3.0), (side * (t.head_width + 1.0), y - 4.0)]), colour, 2.0, lift=3.0
        )
    sketch.line(np.array([(-8.0, t.eye_y - 0.5), (8.0, t.eye_y - 0.5)]), colour, 2.0, lift=8.0)


def _mask(sketch: Sketch, t: Traits, colour: Colour) -> None:
    top, low, w = t.nose_y - 9.0, t.chin_y + 3.0, t.head_width * 0.92
    edge = [
        (-w, top + 6),
        (-w * 0.5, top + 3),
        (0.0, top),
        (w * 0.5, top + 3),
        (w, top + 6),
        (w * 0.8, low * 0.8),
        (0.0, low),
        (-w * 0.8, low * 0.8),
    ]
    sketch.fill(curve(edge, closed=True), colour, lift=4.0)
    for y in (top + 14, top + 22):
        sketch.line(
            curve([(-w * 0.75, y), (0.0, y + 1.5), (w * 0.75, y)]),
            (colour[0] * 3 // 4, colour[1] * 3 // 4, colour[2] * 3 // 4),
            1.0,
            lift=4.0,
        )
