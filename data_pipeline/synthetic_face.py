"""Draws the features of one synthetic identity with one expression onto a sketch, from the back to the front."""

import numpy as np

from data_pipeline.synthetic_expression import Expression
from data_pipeline.synthetic_eyes import draw_brow, draw_eye, draw_glasses
from data_pipeline.synthetic_hair import draw_back_hair, draw_beard, draw_front_hair
from data_pipeline.synthetic_nose_mouth import draw_mouth, draw_nose
from data_pipeline.synthetic_palette import Palette, mixed
from data_pipeline.synthetic_sketch import Points, Sketch, curve, ellipse, surface
from data_pipeline.synthetic_traits import Traits


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
    draw_mouth(sketch, traits, palette, expression)
    for side in (-1.0, 1.0):
        draw_eye(sketch, traits, palette, expression, side)
        draw_brow(sketch, traits, palette, expression, side)
    draw_nose(sketch, traits, palette)
    draw_front_hair(sketch, traits, palette)
    if expression.glasses:
        draw_glasses(sketch, traits)


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
