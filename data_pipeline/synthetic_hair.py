"""Hair and beard of a synthetic identity: a shape behind the head, one in front of it, strands, stubble."""

import numpy as np

from data_pipeline.synthetic_palette import Palette
from data_pipeline.synthetic_sketch import Points, Sketch, curve
from data_pipeline.synthetic_traits import Traits


def _waved(points: Points, t: Traits) -> Points:
    """Locks: the edge moves in and out with the identity's own wave and curl."""
    phase = np.arange(len(points)) * (2 * np.pi / max(t.hair_curl, 1.0))
    return points + np.stack([np.cos(phase), np.sin(phase * 1.3)], axis=1) * t.hair_wave


def draw_back_hair(sketch: Sketch, t: Traits, palette: Palette) -> None:
    """What shows behind the head: nothing for short hair, down to the shoulders for long."""
    width = t.head_width + t.hair_volume * 0.8
    low = max(t.hair_side, -20.0)
    right = [(width * 0.62, t.crown_y - t.hair_volume + 3), (width * 0.98, -38.0), (width + 0.5, -14.0)]
    if low > -4.0:
        right += [(width + 1.0 + 0.06 * low, low * 0.5), (width + 0.10 * low, low), (width * 0.5, low + 3.0)]
    left = [(-x, y) for x, y in reversed(right)]
    outline = curve([(0.0, t.crown_y - t.hair_volume), *right, *left], closed=True)
    sketch.fill(_waved(outline, t), palette.hair_shadow, depth=-52.0)


def draw_front_hair(sketch: Sketch, t: Traits, palette: Palette) -> None:
    """From the crown to the hairline, down the temples as far as the hair is long, with a fringe for some."""
    width = t.head_width * 0.5 + t.head_width * t.forehead * 0.5 + 1.0
    over = t.hair_over + 2.5
    part = t.hair_part * 14.0
    low = min(max(t.hair_side, -26.0), 34.0)
    hairline = t.hairline_y + max(t.fringe, 0.0) * 17.0
    outer_right = [
        (width * 0.64, t.crown_y - t.hair_volume * 0.8 + 5),
        (width + 0.4 * t.hair_volume, -36.0),
        (width + 0.3 * t.hair_volume + 1, min(low, -12.0)),
    ]
    if low > -8.0:
        outer_right.append((width + 0.3 * t.hair_volume, low))
    inner_right = [
        (width - over * 0.4, low),
        (width - over, min(low - 6.0, -20.0)),
        (width - over - 3.0, hairline * 0.55 - 12.0),
        (width * 0.55, hairline - 1.0),
    ]
    mirror_outer = [(-x, y) for x, y in reversed(outer_right)]
    mirror_inner = [(-x, y) for x, y in reversed(inner_right)]
    edge = [
        *outer_right,
        *inner_right,
        (part + 5.0, hairline - 1.5 + 0.3 * t.hair_peak),
        (part, hairline + t.hair_peak * (-1.0 if t.fringe > 0 else 1.0)),
        (part - 5.0, hairline - 1.5 + 0.3 * t.hair_peak),
        *mirror_inner,
        *mirror_outer,
    ]
    outline = _waved(curve([(0.0, t.crown_y - t.hair_volume), *edge], closed=True), t)
    depth = np.where(np.abs(outline[:, 0]) > width * 0.85, -34.0, -22.0) + np.where(outline[:, 1] < -52.0, -14.0, 0.0)
    sketch.fill(outline, palette.hair, depth=depth)
    for index, share in enumerate((-0.75, -0.45, -0.15, 0.2, 0.5, 0.8)):
        start = part + (share * width - part) * 0.35
        strand = curve([(start, t.crown_y - 1), (share * width * 0.8, -50.0), (share * width * 0.97, hairline - 1.5)])
        colour = palette.hair_shadow if index % 2 else palette.hair_shine
        sketch.line(strand, (*colour, 130), 1.1, lift=10.0)


def draw_beard(sketch: Sketch, t: Traits, palette: Palette) -> None:
    """Stubble to full beard, and a moustache, each for a share of the identities."""
    jaw = t.head_width * t.jaw
    if t.beard > 0:
        top = 4.0 + 14.0 * t.beard_cut
        right = [
            (t.head_width - 1.0, top - 8),
            (jaw + 1.5, t.chin_y * 0.5),
            ((jaw + t.chin_width) * 0.54, t.chin_y * 0.84),
            (t.chin_width * 0.6, t.chin_y + 1),
        ]
        inner = [
            (jaw * 0.80, top + 6),
            (t.mouth_width + 5.0, t.mouth_y - 2.0),
            (t.mouth_width + 1.0, t.mouth_y + 5.0),
            (6.0, t.mouth_y + t.lower_lip + 2.5),
        ]
        edge = [
            *right,
            (0.0, t.chin_y + 3.0),
            *[(-x, y) for x, y in reversed(right)],
            *[(-x, y) for x, y in inner],
            *reversed(inner),
        ]
        sketch.fill(curve(edge, closed=True), (*palette.brow, int(80 + 165 * t.beard)))
    if t.moustache > 0:
        y, w = t.mouth_y - t.upper_lip, t.mouth_width
        high = t.nose_y + 2.5
        edge = [
            (0.0, high),
            (w * 0.6, high + 1.5),
            (w + 2.5, y + 3.0),
            (w * 0.7, y + 1.0),
            (0.0, y + 0.6),
            (-w * 0.7, y + 1.0),
            (-w - 2.5, y + 3.0),
            (-w * 0.6, high + 1.5),
        ]
        sketch.fill(curve(edge, closed=True), (*palette.brow, int(130 + 120 * t.moustache)))
