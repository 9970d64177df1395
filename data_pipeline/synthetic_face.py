"""Draws the features of one synthetic identity with one expression onto a sketch, from the back to the front."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.synthetic_hair import draw_back_hair, draw_beard, draw_front_hair
from data_pipeline.synthetic_palette import Palette, mixed
from data_pipeline.synthetic_sketch import Points, Sketch, curve, ellipse, surface
from data_pipeline.synthetic_traits import Traits


@dataclass(frozen=True)
class Expression:
    """What a face does in one image: `open` and `smile` of the mouth, `lids` 1 = the identity's own eye height."""

    mouth_open: float = 0.0
    smile: float = 0.0
    lids: float = 1.0
    brow_raise: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    glasses: bool = False


def landmarks(traits: Traits) -> Points:
    """Eyes, tip of the nose and corners of the mouth, [5, 3], as a face detector would place them."""
    points = np.array(
        [
            (-traits.eye_spacing, traits.eye_y),
            (traits.eye_spacing, traits.eye_y),
            (0.0, traits.nose_y - 3.0),
            (-traits.mouth_width, traits.mouth_y),
            (traits.mouth_width, traits.mouth_y),
        ]
    )
    lift = np.array([-2.0, -2.0, traits.nose_out * 0.8, 1.0, 1.0])
    return np.column_stack([points, surface(points) + lift])


def draw_face(sketch: Sketch, traits: Traits, palette: Palette, expression: Expression) -> None:
    """Everything from the back hair to the glasses."""
    draw_back_hair(sketch, traits, palette)
    _neck_and_ears(sketch, traits, palette)
    outline = _head_outline(traits)
    sketch.fill(outline, palette.skin, depth=_outline_depth(outline))
    _skin(sketch, traits, palette)
    draw_beard(sketch, traits, palette)
    _mouth(sketch, traits, palette, expression)
    for side in (-1.0, 1.0):
        _eye(sketch, traits, palette, expression, side)
        _brow(sketch, traits, palette, expression, side)
    _nose(sketch, traits, palette)
    draw_front_hair(sketch, traits, palette)
    if expression.glasses:
        _glasses(sketch, traits)


def _head_outline(t: Traits) -> Points:
    cheek, brow, jaw = t.head_width, t.head_width * t.forehead, t.head_width * t.jaw
    right = [
        (cheek * 0.52, t.crown_y + 4.0),
        (brow * 0.93, -42.0),
        (brow, -24.0),
        (cheek, -4.0),
        (jaw * 0.99, 0.48 * t.chin_y),
        ((jaw + t.chin_width) * 0.52, 0.80 * t.chin_y),
        (t.chin_width * 0.62, 0.97 * t.chin_y),
    ]
    left = [(-x, y) for x, y in reversed(right)]
    return curve([(0.0, t.crown_y), *right, (0.0, t.chin_y + 1.0), *left], closed=True)


def _outline_depth(outline: Points) -> Points:
    """The silhouette of a round head stays when it turns; only the chin, which is far in front, moves with the face."""
    return np.clip(outline[:, 1], 0.0, 45.0) / 45.0 * 16.0 - 30.0


def _neck_and_ears(sketch: Sketch, t: Traits, palette: Palette) -> None:
    width = t.head_width * 0.66
    neck = curve(
        [
            (-width, 8.0),
            (width, 8.0),
            (width * 1.05, 46.0),
            (width * 1.9, 75.0),
            (-width * 1.9, 75.0),
            (-width * 1.05, 46.0),
        ],
        True,
    )
    sketch.fill(neck, mixed(palette.skin, palette.shadow, 0.75), depth=-34.0)
    for side in (-1.0, 1.0):
        x, size = t.head_width - 2.0 + t.ear_out * 0.6, t.ear_size
        ear = curve(
            [
                (x - 4, -15),
                (x + 1.5 * size, -20 * size),
                (x + 5.5 * size, -14 * size),
                (x + 4 * size, -2),
                (x, 6 * size),
                (x - 4, 4),
            ],
            closed=True,
        ) * (side, 1.0)
        sketch.fill(ear, mixed(palette.skin, palette.shadow, 0.35), depth=-38.0)
        inner = curve([(x, -12), (x + 3 * size, -12 * size), (x + 2 * size, -3), (x, 1)], closed=True) * (side, 1.0)
        sketch.fill(inner, mixed(palette.skin, palette.shadow, 0.8), depth=-38.0)


def _skin(sketch: Sketch, t: Traits, palette: Palette) -> None:
    """Soft shadows and highlights that give the face its relief, then spots."""
    for side in (-1.0, 1.0):
        sketch.shade(ellipse(side * t.eye_spacing * 0.86, t.eye_y - 2.5, 9.5, 6.0), 108)
        sketch.shade(ellipse(side * 24.0, 9.0, 9.0, 7.0), 134 + 8 * t.cheekbones)
        sketch.shade(ellipse(side * t.head_width * 0.74, 17.0, 5.5, 11.0), 128 - 34 * t.cheekbones)
        sketch.shade(ellipse(side * t.head_width * 0.98, 4.0, 5.0, 40.0), 104)
        cheek = (*palette.blush, int(90 * t.blush))
        sketch.fill(ellipse(side * 23.0, 9.0, 8.0, 5.5), cheek)
        if t.eye_bags > 0:
            bag = curve(
                [
                    (t.eye_spacing - 6.5, t.eye_y + 5),
                    (t.eye_spacing, t.eye_y + 8.5),
                    (t.eye_spacing + 6.5, t.eye_y + 5.5),
                ]
            )
            sketch.line(bag * (side, 1.0), (*palette.shadow, int(150 * t.eye_bags)), 1.0)
        if t.folds > 0:
            x, y = t.nose_width + 1.5, t.nose_y - 1.0
            fold = curve([(x, y), (x + 4.5, y + 7.0), (t.mouth_width + 4.0, t.mouth_y - 1.0)])
            sketch.line(fold * (side, 1.0), (*palette.shadow, int(170 * t.folds)), 1.1)
    sketch.shade(ellipse(0.0, -36.0, 20.0, 9.0), 138)
    sketch.shade(ellipse(0.0, t.chin_y - 5.0, t.chin_width * 0.6, 4.0), 136)
    sketch.shade(ellipse(0.0, t.chin_y + 3.0, 26.0, 5.0), 84)
    if t.chin_cleft > 0.2:
        sketch.line(
            curve([(0.0, t.chin_y - 7.0), (0.4, t.chin_y - 2.0)]), (*palette.shadow, int(200 * t.chin_cleft)), 1.3
        )
    if t.freckles > 0:
        layout = np.random.default_rng(int(t.freckle_layout * 2**32))
        places = layout.normal(size=(int(4 + 26 * t.freckles), 2)) * (13.0, 4.0) + (0.0, 1.0)
        for x, y in places.tolist():
            sketch.fill(ellipse(x, y, 0.75, 0.7), (*palette.mole, 120))
    for x, y, size in ((t.mole_x, t.mole_y, t.mole_size), (t.mole2_x, t.mole2_y, t.mole2_size)):
        if size > 0.3:
            sketch.fill(ellipse(x, y, size, size), (*palette.mole, 235))


def _eye(sketch: Sketch, t: Traits, palette: Palette, expression: Expression, side: float) -> None:
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


def _brow(sketch: Sketch, t: Traits, palette: Palette, expression: Expression, side: float) -> None:
    base = t.eye_y - t.brow_gap - 1.6 * expression.brow_raise
    inner, outer, thick = t.brow_inner, t.brow_outer, t.brow_thickness
    middle = inner + (outer - inner) * t.brow_peak
    top = base - t.brow_arch - 0.3 * t.brow_tilt
    upper = curve([(inner, base - thick * 0.5), (middle, top - thick * 0.6), (outer, base - t.brow_tilt)])
    lower = curve(
        [(inner + 0.5, base + thick * 0.5), (middle - 0.5, top + thick * 0.4), (outer, base - t.brow_tilt + 0.6)]
    )
    sketch.fill(np.concatenate([upper, lower[::-1]]) * (side, 1.0), palette.brow, lift=1.0)


def _nose(sketch: Sketch, t: Traits, palette: Palette) -> None:
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


def _mouth(sketch: Sketch, t: Traits, palette: Palette, expression: Expression) -> None:
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


def _glasses(sketch: Sketch, t: Traits) -> None:
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
