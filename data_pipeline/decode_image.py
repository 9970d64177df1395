"""One encoded image to pixels, with Pillow."""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 1 << 26  # a face image never has more; a crafted header must not make us allocate


def decode_image(encoded: bytes, image_size: int | None = None) -> NDArray[np.uint8]:
    """An encoded image -> [H, W, 3] uint8 RGB, resized to ``image_size`` where given and different.

    Raises:
        ValueError: no image that Pillow reads, cut short, or larger than MAX_PIXELS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow's warnings are about broken or enormous files
            with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG", "WEBP", "BMP")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width}x{image.height} pixels are too many")
                # Upright as its EXIF data says, like DALI.
                picture = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:
        raise ValueError("no JPEG, PNG, WebP or BMP") from None
    except (OSError, SyntaxError, KeyError, struct.error, Warning, Image.DecompressionBombError) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    if image_size is not None and picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
