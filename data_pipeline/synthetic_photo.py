"""One photograph of a synthetic identity: pose, expression, background, light, occlusion, blur, noise, JPEG.

Everything that is not the identity comes from the generator given, and none of it from the identity.
"""

import io
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from data_pipeline.synthetic_expression import draw_expression
from data_pipeline.synthetic_face import draw_face, landmarks
from data_pipeline.synthetic_occlusion import draw_occlusion
from data_pipeline.synthetic_palette import Palette
from data_pipeline.synthetic_sketch import Colour, Points, Shape, Sketch
from data_pipeline.synthetic_traits import FACE_CENTER, Traits

TEMPLATE_SIZE = 112
SUPERSAMPLING = 2


def photograph(traits: Traits, generator: np.random.Generator, image_size: int = 112) -> bytes:
    """A JPEG of `image_size` x `image_size` pixels, RGB; the same for the same traits and generator state."""
    sketch = Sketch()
    draw_face(sketch, traits, Palette.of(traits), draw_expression(traits, generator))
    draw_occlusion(sketch, traits, generator)
    yaw, pitch = generator.normal(0.0, 0.24), generator.normal(0.0, 0.14)
    points = sketch.project(landmarks(traits), yaw, pitch)
    points = _jittered(points, generator)

    canvas_size = SUPERSAMPLING * image_size
    canvas = _background(canvas_size, generator)
    _draw(canvas, sketch.shapes, points * (canvas_size / TEMPLATE_SIZE), canvas_size / TEMPLATE_SIZE)
    _patch(canvas, generator)
    photo = canvas.reduce(SUPERSAMPLING)
    if generator.random() < 0.5:
        photo = photo.filter(ImageFilter.GaussianBlur(generator.uniform(0.3, 1.5) * image_size / TEMPLATE_SIZE))
    light = _light(image_size, generator)
    light *= _relief(sketch.shapes, points, image_size)
    photo = Image.fromarray(_exposed(np.asarray(photo), light, generator))
    encoded = io.BytesIO()
    photo.save(encoded, "JPEG", quality=int(generator.integers(60, 96)))
    return encoded.getvalue()


def _jittered(points: Points, generator: np.random.Generator) -> Points:
    """The error of a face detector: a small turn, scale and shift about the middle of the face."""
    angle = generator.normal(0.0, 0.045)
    scale = np.exp(generator.normal(0.0, 0.035))
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved: Points = (points - FACE_CENTER) @ turn + FACE_CENTER + generator.normal(0.0, 1.3, size=2)
    return moved


def _random_colour(generator: np.random.Generator) -> Colour:
    """Any brightness; strong colours are rarer than dull ones, as around people."""
    grey = generator.uniform(10, 245)
    r, g, b = np.clip(grey + generator.normal(0.0, 34.0, size=3), 0, 255).astype(int).tolist()
    return r, g, b


def _background(size: int, generator: np.random.Generator) -> Image.Image:
    """A gradient between two colours with a few shapes, as out of focus as a wall behind a person."""
    small = 16
    corners = np.array([_random_colour(generator) for _ in range(4)], dtype=np.uint8)
    canvas = Image.fromarray(corners.reshape(2, 2, 3)).resize((small, small), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(generator.integers(0, 5))):
        x, y = generator.uniform(-4, small, size=2).tolist()
        w, h = generator.uniform(2, 12, size=2).tolist()
        shape = draw.rectangle if generator.random() < 0.6 else draw.ellipse
        shape((x, y, x + w, y + h), fill=_random_colour(generator))
    return canvas.resize(
        (size, size), Image.Resampling.BILINEAR if generator.random() < 0.6 else Image.Resampling.NEAREST
    )


def _draw(canvas: Image.Image, shapes: list[Shape], points: Points, scale: float) -> None:
    draw = ImageDraw.Draw(canvas, "RGBA")
    for shape in shapes:
        if shape.kind == "shade":
            continue
        flat = points[shape.start : shape.stop].ravel().tolist()
        if shape.kind == "fill":
            draw.polygon(flat, fill=shape.colour)
        else:
            draw.line(flat, fill=shape.colour, width=max(1, round(shape.width * scale)), joint=None)


def _relief(shapes: list[Shape], points: Points, size: int) -> NDArray[np.float32]:
    """Soft shadows [size, size] as factors: blurred grey shapes, 128 being 1."""
    small = max(size // 2, 1)  # soft shadows need no more, and blurring costs a quarter
    shades = Image.new("L", (small, small), 128)
    draw, scale = ImageDraw.Draw(shades), small / TEMPLATE_SIZE
    for shape in shapes:
        if shape.kind == "shade":
            draw.polygon((points[shape.start : shape.stop] * scale).ravel().tolist(), fill=shape.colour[0])
    blurred = shades.filter(ImageFilter.GaussianBlur(2.6 * small / TEMPLATE_SIZE))
    blurred = blurred.resize((size, size), Image.Resampling.BILINEAR)
    return cast(NDArray[np.float32], np.asarray(blurred, dtype=np.float32) / np.float32(128))


def _light(size: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """A lamp from any side on a round head: factors [size, size], from a soft gradient to hard side light."""
    direction = generator.uniform(0, 2 * np.pi)
    strength = generator.beta(1.2, 2.0) * 0.95
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    slope = np.float32(np.cos(direction)) * axis[None, :] + np.float32(np.sin(direction)) * axis[:, None]
    sharpness = np.float32(generator.uniform(1.0, 4.0))
    lit = slope * sharpness
    lit /= 1 + np.abs(lit)
    return cast(NDArray[np.float32], 1 + np.float32(strength) * lit)


def _exposed(
    pixels: NDArray[np.uint8], light: NDArray[np.float32], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """What the camera makes of the scene [h, w, 3] under `light` [h, w]: exposure, colour temperature, tint,
    saturation and sensor noise, then gamma and haze.
    """
    temperature, tint = generator.normal(0.0, 0.13), generator.normal(0.0, 0.05)
    gain = np.exp(generator.normal(0.0, 0.24) + np.array([temperature, tint, -temperature]))
    saturation = generator.uniform(0.3, 1.3) if generator.random() < 0.9 else 0.0
    # Rows: what each channel takes from red, green and blue, so that colour and gain are one small product.
    mix = (saturation * np.eye(3) + (1.0 - saturation) / 3.0) * gain
    scene = pixels.astype(np.float32)
    scene *= light[..., None]
    scene = scene @ mix.astype(np.float32)
    # The difference of two uniform bytes is bell-shaped enough, and ten times cheaper than normal numbers.
    dice = np.frombuffer(generator.bytes(2 * scene.size), dtype=np.uint8).reshape(2, *scene.shape)
    noise = np.subtract(dice[0], dice[1], dtype=np.float32)
    noise *= np.float32(generator.gamma(1.2, 4.0) / 104.5)
    scene += noise
    gamma, haze = np.exp(generator.normal(0.0, 0.22)), generator.normal(0.0, 12.0)
    curve = np.clip(255 * (np.arange(256) / 255) ** gamma + haze, 0, 255).astype(np.uint8)
    exposed: NDArray[np.uint8] = curve[np.clip(scene, 0, 255, out=scene).astype(np.uint8)]
    return exposed


def _patch(canvas: Image.Image, generator: np.random.Generator) -> None:
    """Now and then something between camera and face: a plain patch of up to a fifth of the picture."""
    if generator.random() < 0.12:
        w, h = (generator.uniform(0.15, 0.45, size=2) * canvas.width).tolist()
        x, y = (generator.uniform(-0.1, 0.9, size=2) * canvas.width).tolist()
        draw = ImageDraw.Draw(canvas)
        shape = draw.rectangle if generator.random() < 0.5 else draw.ellipse
        shape((x, y, x + w, y + h), fill=_random_colour(generator))
