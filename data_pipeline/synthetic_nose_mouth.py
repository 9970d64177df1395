"""Nose and mouth of a synthetic identity."""

import numpy as np

from data_pipeline.synthetic_expression import Expression
from data_pipeline.synthetic_palette import Palette, mixed
from data_pipeline.synthetic_sketch import Sketch, curve, ellipse, surface
from data_pipeline.synthetic_traits import Traits


def draw_nose(sketch: Sketch, t: Traits, palette: Palette) -> None:
    """Ridge, wings, nostrils and their shadows; the tip stands out from the face and moves when it turns."""
    base, wing, tip = t.nose_y, t.nose_width, t.nose_tip
    out = t.nose_out
    sketch.shade(ellipse(0.0, base + 4.0, wing * 0.9, 2.6), 92)
    ridge = curve([(0.0, t.eye_y + 1), (0.0, (t.eye_y + base) / 2), (0.0, base - 5)])
    lift = np.linspace(1.0, out, len(ridge))
    width = t.bridge_width * (0.5 + 0.25 * t.nose_bump * np.sin(np.linspace(0, np.pi, len(ridge))))
    sketch.fill(
        np.concatenate(
            [ridge - np.column_stack([width, width * 0]), (ridge + np.column_stack([width, width * 0]))[::-1]]
        ),
        (*palette.highlight, 70),
        depth=np.concatenate([surface(ridge) + lift, (surface(ridge) + lift)[::-1]]),
    )
    sketch.fill(ellipse(0.0, base - 3.6, tip, tip * 0.85), (*palette.highlight, 90), lift=out)
    for side in (-1.0, 1.0):
        sketch.shade(
            np.array(
                [
                    (side * t.bridge_width, t.eye_y),
                    (side * (t.bridge_width + 3.0), t.eye_y + 3),
                    (side * (wing + 1.0), base - 2),
                    (side * tip, base - 4),
                ]
            ),
            104,
            lift=out * 0.4,
        )
        side_line = curve(
            [
                (t.bridge_width + 1.2, t.eye_y + 1.0),
                (t.bridge_width + 0.3, (t.eye_y + base) / 2),
                (tip + 0.4, base - 5.5),
            ]
        )
        sketch.line(side_line * (side, 1.0), (*palette.shadow, 90), 1.0, lift=out * 0.45)
        alar = curve(
            [(wing * 0.72, base - 5.5), (wing, base - 2.0), (wing * 0.82, base + 0.8), (wing * 0.5, base + 0.6)]
        )
        sketch.line(alar * (side, 1.0), (*palette.shadow, 235), 1.3, lift=out * 0.45)
        sketch.fill(
            ellipse(side * wing * 0.45, base, t.nostril * 1.25, t.nostril * 0.75),
            (*palette.crevice, 220),
            lift=out * 0.7,
        )
    under = curve([(-wing * 0.5, base + 0.4), (0.0, base + 1.6), (wing * 0.5, base + 0.4)])
    sketch.line(under, (*palette.shadow, 230), 1.1, lift=out * 0.75)


def draw_mouth(sketch: Sketch, t: Traits, palette: Palette, expression: Expression) -> None:
    """Lips with the expression's smile, apart over dark and teeth when the mouth is open."""
    gap = 6.5 * expression.mouth_open
    w = t.mouth_width * (1.0 + 0.10 * expression.smile - 0.12 * expression.mouth_open)
    y = t.mouth_y
    corner = y - 2.2 * expression.smile + t.mouth_droop
    thin = 1.0 - 0.18 * max(expression.smile, 0.0)
    up, low = t.upper_lip * thin, t.lower_lip * thin
    left, right = (-w, corner), (w, corner)
    inner_top = curve(
        [left, (-w * 0.4, y - gap * 0.3), (0.0, y - gap * 0.25 + 0.3 * t.lip_bow), (w * 0.4, y - gap * 0.3), right]
    )
    inner_bottom = curve([left, (-w * 0.4, y + gap * 0.7), (0.0, y + gap * 0.85), (w * 0.4, y + gap * 0.7), right])
    top = curve(
        [
            left,
            (-w * 0.55, y - gap * 0.25 - up * 0.62),
            (-w * 0.2, y - gap * 0.25 - up),
            (0.0, y - gap * 0.25 - up + t.lip_bow),
            (w * 0.2, y - gap * 0.25 - up),
            (w * 0.55, y - gap * 0.25 - up * 0.62),
            right,
        ]
    )
    bottom = curve(
        [
            left,
            (-w * 0.5, y + gap * 0.75 + low * 0.75),
            (0.0, y + gap * 0.85 + low),
            (w * 0.5, y + gap * 0.75 + low * 0.75),
            right,
        ]
    )
    sketch.shade(ellipse(0.0, y + gap * 0.85 + low + 2.8, w * 0.55, 2.2), 96)
    sketch.shade(ellipse(0.0, (t.nose_y + y - up) / 2 + 1, 1.8, 3.0), 112)
    if gap > 1.2:
        sketch.fill(np.concatenate([inner_top, inner_bottom[::-1]]), palette.crevice)
        teeth = inner_bottom.copy()
        teeth[:, 1] = np.minimum(inner_bottom[:, 1], inner_top[:, 1] + 2.6)
        sketch.fill(np.concatenate([inner_top, teeth[::-1]])[3:-3], (236, 230, 220))
    sketch.fill(np.concatenate([top, inner_top[::-1]]), mixed(palette.lip, palette.shadow, 0.3))
    sketch.fill(np.concatenate([inner_bottom, bottom[::-1]]), palette.lip)
    sketch.shade(ellipse(0.0, y + gap * 0.85 + low * 0.5, w * 0.35, low * 0.3), 144)
    if gap <= 1.2:
        sketch.line(inner_top, (*palette.crevice, 225), 1.1)
