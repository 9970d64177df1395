"""What makes a synthetic identity: some sixty numbers, each drawn from a continuous range.

Lengths are pixels of the 112 x 112 ArcFace template, from the middle of the face (FACE_CENTER): x to the image's
right, y down, z towards the viewer. Ranges are narrow on purpose: many identities are alike in most traits, so that
telling them apart takes the whole face.
"""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

FACE_CENTER = (56.0, 68.0)


def _between(low: float, high: float) -> Any:
    return field(metadata={"range": (low, high)})


@dataclass(frozen=True)
class Traits:
    """One synthetic identity. Every field lies inside the range beside it, more often near its middle."""

    # Skull and jaw: half-widths, and heights of its top and chin.
    head_width: float = _between(35.0, 43.0)
    forehead: float = _between(0.80, 1.00)  # of head_width
    jaw: float = _between(0.66, 0.97)  # of head_width
    chin_width: float = _between(7.0, 19.0)
    chin_y: float = _between(37.0, 49.0)
    crown_y: float = _between(-64.0, -56.0)
    ear_size: float = _between(0.7, 1.3)
    ear_out: float = _between(1.0, 6.5)
    # Skin.
    melanin: float = _between(0.0, 1.0)
    skin_warmth: float = _between(-1.0, 1.0)
    blush: float = _between(0.0, 1.0)
    freckles: float = _between(-1.0, 1.0)  # none below 0
    freckle_layout: float = _between(0.0, 1.0)  # seeds their places
    mole_x: float = _between(-32.0, 32.0)
    mole_y: float = _between(-34.0, 38.0)
    mole_size: float = _between(-1.2, 1.8)  # none below 0.3
    mole2_x: float = _between(-32.0, 32.0)
    mole2_y: float = _between(-34.0, 38.0)
    mole2_size: float = _between(-1.4, 1.6)
    folds: float = _between(-0.6, 1.0)  # from nose to mouth
    eye_bags: float = _between(-0.4, 1.0)
    cheekbones: float = _between(0.0, 1.0)
    chin_cleft: float = _between(-1.0, 1.0)
    # Eyes: the distance of each from the middle; half-widths; tilt is the rise of the outer corner.
    eye_spacing: float = _between(15.2, 20.0)
    eye_y: float = _between(-19.0, -14.5)
    eye_width: float = _between(5.6, 8.8)
    eye_height: float = _between(2.4, 5.0)
    eye_tilt: float = _between(-1.8, 2.4)
    eye_peak: float = _between(-0.45, 0.45)  # where the upper lid is highest
    lower_lid: float = _between(0.45, 0.95)
    lid_crease: float = _between(0.2, 3.2)
    lashes: float = _between(0.6, 2.0)
    iris_size: float = _between(2.7, 3.9)
    iris_hue: float = _between(0.0, 1.0)
    iris_light: float = _between(0.65, 1.25)
    # Brows.
    brow_gap: float = _between(5.5, 11.0)
    brow_inner: float = _between(4.5, 11.0)
    brow_outer: float = _between(25.5, 32.0)
    brow_thickness: float = _between(1.0, 4.0)
    brow_arch: float = _between(0.0, 4.5)
    brow_tilt: float = _between(-2.4, 2.4)
    brow_peak: float = _between(0.35, 0.75)
    brow_dark: float = _between(0.5, 1.0)
    # Nose.
    nose_y: float = _between(2.5, 10.5)  # of its base
    nose_width: float = _between(5.0, 10.0)
    bridge_width: float = _between(1.8, 4.6)
    nostril: float = _between(0.7, 1.9)
    nose_tip: float = _between(2.2, 5.0)
    nose_out: float = _between(8.0, 19.0)
    nose_bump: float = _between(-1.0, 1.0)
    # Mouth.
    mouth_y: float = _between(20.5, 28.0)
    mouth_width: float = _between(10.5, 17.0)
    upper_lip: float = _between(1.2, 4.6)
    lower_lip: float = _between(1.8, 6.0)
    lip_bow: float = _between(0.0, 2.0)
    mouth_droop: float = _between(-1.6, 1.6)
    lip_red: float = _between(0.1, 1.0)
    # Hair.
    hair_light: float = _between(-0.6, 1.0)
    hair_red: float = _between(-0.4, 1.0)
    hair_grey: float = _between(-2.6, 1.0)
    hairline_y: float = _between(-52.0, -33.0)
    hair_part: float = _between(-1.0, 1.0)
    hair_peak: float = _between(-3.0, 7.0)
    hair_volume: float = _between(1.0, 11.0)
    hair_side: float = _between(-34.0, 60.0)  # height at which it ends beside the face
    hair_over: float = _between(0.5, 7.0)  # how far it covers the temples
    hair_wave: float = _between(0.0, 2.6)
    hair_curl: float = _between(3.0, 11.0)
    fringe: float = _between(-1.0, 1.0)
    beard: float = _between(-2.0, 1.0)
    moustache: float = _between(-2.6, 1.0)
    beard_cut: float = _between(0.0, 1.0)
    # Glasses are worn in a share of the images.
    glasses: float = _between(-1.0, 0.9)
    frame_round: float = _between(0.0, 1.0)
    frame_size: float = _between(0.9, 1.25)
    frame_dark: float = _between(0.0, 1.0)


RANGES: tuple[tuple[float, float], ...] = tuple(trait.metadata["range"] for trait in fields(Traits))


def draw_traits(generator: np.random.Generator) -> Traits:
    """A new identity: every trait independently from a bell-shaped beta distribution over its range."""
    low, high = np.array(RANGES).T
    return Traits(*(low + (high - low) * generator.beta(1.6, 1.6, size=len(low))).tolist())
