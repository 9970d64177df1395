"""What a face does in one image; nothing of it tells the identity except how often glasses are worn."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.synthetic_traits import Traits


@dataclass(frozen=True)
class Expression:
    """`mouth_open` in [0, 1]; `smile`, `brow_raise` and the gaze (pixels) about 0; `lids` 1 at the own eye height."""

    mouth_open: float
    smile: float
    lids: float
    brow_raise: float
    gaze_x: float
    gaze_y: float
    glasses: bool


def draw_expression(traits: Traits, generator: np.random.Generator) -> Expression:
    """A new expression: the mouth is shut in half of them, the eyes in one of twenty."""
    opened = generator.uniform(-1.2, 1.0)
    return Expression(
        mouth_open=max(opened, 0.0),
        smile=generator.normal(0.25, 0.5),
        lids=generator.uniform(0.6, 1.15) if generator.random() < 0.95 else 0.12,
        brow_raise=generator.normal(0.0, 0.9),
        gaze_x=generator.normal(0.0, 1.0),
        gaze_y=generator.normal(0.0, 0.35),
        glasses=bool(generator.random() < traits.glasses),
    )
