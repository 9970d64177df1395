"""Simple synthetic identities: soft colour patterns instead of faces, drawn over three times as fast.

For data sets of a million identities and more, where the number of classes matters and not what is in the pictures.
An identity is a coarse pattern; each photograph of it is moved, turned, lit, partly covered and noisy.

Shapes: S pixels of a side.
"""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CELLS = 8  # of the pattern, along each side
_MARGIN = 1.25  # cells beyond the picture's edge, so that moving never shows the pattern's end


def draw_pattern(generator: np.random.Generator) -> NDArray[np.uint8]:
    """A new identity: [CELLS, CELLS, 3] colours around a grey, so that no single cell tells it."""
    colours = generator.normal(128.0, 42.0, size=(CELLS, CELLS, 3))
    return np.clip(colours, 0, 255).astype(np.uint8)


def photograph_pattern(pattern: NDArray[np.uint8], generator: np.random.Generator, image_size: int = 112) -> bytes:
    """A JPEG of `image_size` x `image_size` pixels, RGB; the same for the same pattern and generator state."""
    angle, zoom = (
        generator.normal(0.0, 0.07),
        (CELLS - 2 * _MARGIN) / image_size * math.exp(generator.normal(0.0, 0.06)),
    )
    x, y = (CELLS / 2 + np.clip(generator.normal(0.0, 0.25, size=2), -0.8, 0.8)).tolist()
    cos, sin, half = zoom * math.cos(angle), zoom * math.sin(angle), image_size / 2
    place = (cos, -sin, x - half * (cos - sin), sin, cos, y - half * (sin + cos))
    photo = Image.fromarray(pattern).transform(
        (image_size, image_size), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR
    )
    if generator.random() < 0.4:
        left, top = (generator.uniform(-0.1, 0.8, size=2) * image_size).astype(int).tolist()
        width, height = (generator.uniform(0.15, 0.5, size=2) * image_size).astype(int).tolist()
        photo.paste(tuple(generator.integers(0, 256, size=3).tolist()), (left, top, left + width, top + height))
    encoded = io.BytesIO()
    pixels = _exposed(np.asarray(photo), generator)
    Image.fromarray(pixels).save(encoded, "JPEG", quality=int(generator.integers(60, 96)))
    return encoded.getvalue()


def _exposed(pixels: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """[S, S, 3] under a lamp from one side, with exposure, tint, contrast and sensor noise of its own."""
    size = len(pixels)
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    direction, strength = generator.uniform(0.0, 2 * math.pi), np.float32(generator.beta(1.2, 2.0) * 0.7)
    lit = np.float32(1) + strength * (
        np.float32(math.cos(direction)) * axis[None, :] + np.float32(math.sin(direction)) * axis[:, None]
    )
    gain = np.exp(generator.normal(0.0, (0.22, 0.16, 0.22))).astype(np.float32)
    scene = pixels * (lit[..., None] * gain)
    dice = np.frombuffer(generator.bytes(2 * scene.size), dtype=np.uint8).reshape(2, *scene.shape)
    noise = np.subtract(dice[0], dice[1], dtype=np.float32)  # bell-shaped enough
    noise *= np.float32(generator.gamma(1.2, 5.0) / 104.5)
    scene += noise
    scene += np.float32(generator.normal(0.0, 12.0))
    exposed: NDArray[np.uint8] = np.clip(scene, 0, 255, out=scene).astype(np.uint8)
    return exposed
