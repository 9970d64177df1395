"""Eyes, brows and glasses of a synthetic identity; `side` is 1 for the eye at the image's right, -1 for the other."""

import numpy as np

from data_pipeline.synthetic_expression import Expression
from data_pipeline.synthetic_palette import Palette, mixed
from data_pipeline.synthetic_sketch import Points, Sketch, curve, ellipse
from data_pipeline.synthetic_traits import Traits


def draw_eye(sketch: Sketch, t: Traits, palette: Palette, expression: Expression, side: float) -> None:
    """Built for the eye at the image's right (x > 0: the outer corner is at larger x) and mirrored by `side`."""
    w, h = t.eye_width, t.eye_height * expression.lids
    x, y = t.eye_spacing, t.eye_y
    inner, outer = (x - w, y + 0.6), (x + w, y + 0.2 - t.eye_tilt)
    upper = curve(
        [
            inner,
            (x - w * 0.5, y - h * 0.72),
            (x + w * t.eye_peak * 0.6, y - h),
            (x + w * 0.6, y - h * 0.66 - t.eye_tilt * 0.6),
            outer,
        ]
    )
    lower = curve([inner, (x - w * 0.4, y + h * 0.55 * t.lower_lid), (x + w * 0.3, y + h * 0.75 * t.lower_lid), outer])

    def between_lids(points: Points) -> Points:
        top = np.interp(points[:, 0], upper[:, 0], upper[:, 1])
        bottom = np.interp(points[:, 0], lower[:, 0], lower[:, 1])
        return np.column_stack([points[:, 0], np.clip(points[:, 1], top, np.maximum(top, bottom))])

    def put(points: Points) -> Points:
        return points * (side, 1.0)

    sketch.fill(put(np.concatenate([upper, lower[::-1]])), palette.eye_white)
    gaze_x, gaze_y = x + side * expression.gaze_x, y - h * 0.12 + expression.gaze_y
    r = t.iris_size
    sketch.fill(put(between_lids(ellipse(gaze_x, gaze_y, r, r))), mixed(palette.iris, (0, 0, 0), 0.45))
    sketch.fill(put(between_lids(ellipse(gaze_x, gaze_y, r * 0.82, r * 0.82))), palette.iris)
    sketch.fill(put(between_lids(ellipse(gaze_x, gaze_y, r * 0.42, r * 0.42))), (12, 10, 10))
    # Both eyes reflect the same lamp, so the highlight is not mirrored.
    glint = ellipse(gaze_x - side * r * 0.35, gaze_y - r * 0.35, 0.75, 0.75)
    sketch.fill(put(between_lids(glint)), (250, 250, 250))
    sketch.line(put(lower), (*palette.shadow, 200), 0.8)
    lash = curve(
        [
            inner,
            (x - w * 0.5, y - h * 0.72),
            (x + w * t.eye_peak * 0.6, y - h),
            (x + w * 0.6, y - h * 0.66 - t.eye_tilt * 0.6),
            outer,
            (x + w + t.lashes, y - 0.6 - t.eye_tilt),
        ]
    )
    sketch.line(put(lash), palette.lash, t.lashes)
    if t.lid_crease > 0.8:
        sketch.line(put(upper[3:-3] - (0.0, t.lid_crease + 0.4)), (*palette.shadow, 210), 0.9)


def draw_brow(sketch: Sketch, t: Traits, palette: Palette, expression: Expression, side: float) -> None:
    """A tapered band above the eye, higher when raised."""
    base = t.eye_y - t.brow_gap - 1.6 * expression.brow_raise
    inner, outer, thick = t.brow_inner, t.brow_outer, t.brow_thickness
    middle = inner + (outer - inner) * t.brow_peak
    top = base - t.brow_arch - 0.3 * t.brow_tilt
    upper = curve([(inner, base - thick * 0.5), (middle, top - thick * 0.6), (outer, base - t.brow_tilt)])
    lower = curve(
        [(inner + 0.5, base + thick * 0.5), (middle - 0.5, top + thick * 0.4), (outer, base - t.brow_tilt + 0.6)]
    )
    sketch.fill(np.concatenate([upper, lower[::-1]]) * (side, 1.0), palette.brow, lift=1.0)


def draw_glasses(sketch: Sketch, t: Traits) -> None:
    """Two rims, a bridge and the arms, as this identity wears them."""
    size = 10.5 * t.frame_size
    height = size * (0.62 + 0.3 * t.frame_round)
    colour = (int(150 - 130 * t.frame_dark), int(120 - 105 * t.frame_dark), int(100 - 85 * t.frame_dark))
    square = 0.94 - 0.2 * t.frame_round
    for side in (-1.0, 1.0):
        x, y = t.eye_spacing, t.eye_y + 1.5
        rim = curve(
            [
                (x - size, y),
                (x - size * square, y - height * square),
                (x, y - height),
                (x + size * square, y - height * square),
                (x + size, y),
                (x + size * square, y + height * square),
                (x, y + height),
                (x - size * square, y + height * square),
                (x - size, y),
            ]
        ) * (side, 1.0)
        sketch.fill(rim, (225, 235, 245, 28), lift=8.0)
        sketch.line(rim, colour, 1.2 + t.frame_dark, lift=8.0)
        arm = np.array([(side * (x + size), y - 2.0), (side * (t.head_width + 1.0), y - 3.5)])
        sketch.line(arm, colour, 1.6, lift=3.0)
    bridge = curve([(-t.eye_spacing + size, t.eye_y), (0.0, t.eye_y - 1.5), (t.eye_spacing - size, t.eye_y)])
    sketch.line(bridge, colour, 1.6, lift=8.0)
