"""One encoded image to pixels, with Pillow."""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 1 << 26  # a face image never has more; a crafted header must not make us allocate
_PIXELS_PER_BYTE = 1 << 9  # one colour alone makes up to some 340, in JPEG and in PNG
_SMALL = 1 << 16  # pixels that anything may have

# Pillow's warnings are about broken or enormous files. Of its own modules alone, and for good: warnings.catch_warnings
# around a decoder's thread would turn warnings of all other threads, whatever they are about, into errors.
warnings.filterwarnings("error", module=r"PIL\.")


def too_many_pixels(pixels: int, encoded_bytes: int) -> bool:
    """Whether an image announces more pixels than its bytes can stand for, or than a face has."""
    return pixels > min(MAX_PIXELS, max(_SMALL, _PIXELS_PER_BYTE * encoded_bytes))


def is_known_format(encoded: bytes) -> bool:
    """Whether the bytes begin like an image that ``decode_image`` reads; other decoders read more."""
    return encoded.startswith((b"\xff\xd8", b"\x89PNG", b"BM")) or encoded[:4] + encoded[8:12] == b"RIFFWEBP"


def decode_image(encoded: bytes, image_size: int | None = None) -> NDArray[np.uint8]:
    """An encoded image -> [H, W, 3] uint8 RGB, resized to ``image_size`` where given and different.

    Raises:
        ValueError: no image that Pillow reads, cut short, or of more pixels than its bytes can stand for.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG", "WEBP", "BMP")) as image:
            if too_many_pixels(image.width * image.height, len(encoded)):
                raise ValueError(f"{image.width}x{image.height} pixels are too many")
            # Upright as its EXIF data says, like DALI.
            picture = _eight_bits(ImageOps.exif_transpose(image)).convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("no JPEG, PNG, WebP or BMP") from None
    except (OSError, SyntaxError, KeyError, struct.error, Warning, Image.DecompressionBombError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    if image_size is not None and picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen-bit grey values scaled to eight bits; Pillow would cut them off at 255."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
