"""The colours of one synthetic identity, from its traits."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.synthetic_sketch import Colour
from data_pipeline.synthetic_traits import Traits

_SKIN = ((247, 214, 192), (222, 172, 138), (176, 124, 90), (108, 72, 54))
_IRIS = ((74, 46, 28), (110, 78, 40), (96, 116, 70), (78, 122, 158), (128, 142, 152))
_HAIR = ((24, 20, 19), (58, 40, 28), (112, 80, 50), (196, 160, 104))


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """The colour `share` of the way from `one` to `other`."""
    return (
        int(one[0] + (other[0] - one[0]) * share),
        int(one[1] + (other[1] - one[1]) * share),
        int(one[2] + (other[2] - one[2]) * share),
    )


def _scale(stops: tuple[Colour, ...], place: float) -> Colour:
    position = float(np.clip(place, 0.0, 1.0)) * (len(stops) - 1)
    index = min(int(position), len(stops) - 2)
    return mixed(stops[index], stops[index + 1], position - index)


@dataclass(frozen=True)
class Palette:
    """RGB of every part of a face."""

    skin: Colour
    shadow: Colour
    highlight: Colour
    blush: Colour
    mole: Colour
    lip: Colour
    crevice: Colour
    eye_white: Colour
    iris: Colour
    lash: Colour
    hair: Colour
    hair_shadow: Colour
    hair_shine: Colour
    brow: Colour

    @classmethod
    def of(cls, traits: Traits) -> "Palette":
        """The palette that follows from `traits`."""
        warm = int(9 * traits.skin_warmth)
        r, g, b = _scale(_SKIN, traits.melanin)
        skin = (min(r + warm // 2, 255), g, max(b - warm, 0))
        shadow = mixed(skin, (70, 22, 16), 0.50)
        hair = _scale(_HAIR, traits.hair_light)
        hair = mixed(hair, (148, 66, 28), 0.75 * max(traits.hair_red, 0.0) ** 2)
        hair = mixed(hair, (178, 176, 174), 0.95 * max(traits.hair_grey, 0.0) ** 0.7)
        iris = _scale(_IRIS, traits.iris_hue)
        light = traits.iris_light
        return cls(
            skin=skin,
            shadow=shadow,
            highlight=mixed(skin, (255, 246, 236), 0.55),
            blush=mixed(skin, (214, 74, 70), 0.5),
            mole=mixed(skin, (48, 22, 14), 0.78),
            lip=mixed(mixed(skin, (150, 70, 66), 0.55), (186, 36, 52), 0.75 * traits.lip_red**2),
            crevice=mixed(skin, (36, 8, 8), 0.86),
            eye_white=mixed((246, 244, 240), skin, 0.12),
            iris=(min(int(iris[0] * light), 255), min(int(iris[1] * light), 255), min(int(iris[2] * light), 255)),
            lash=mixed(hair, (20, 14, 12), 0.8),
            hair=hair,
            hair_shadow=mixed(hair, (10, 6, 5), 0.45),
            hair_shine=mixed(hair, (255, 240, 220), 0.22),
            brow=mixed(mixed(hair, skin, 0.25), (16, 10, 8), 0.6 * traits.brow_dark),
        )
