"""Image files to the JPEGs that are stored, in whichever process."""

import io
from pathlib import Path

from PIL import Image

from data_pipeline.decode_image import decode_image
from data_pipeline.image_size import jpeg_size


def encode_images(paths: list[str], image_size: int, quality: int) -> list[bytes | str]:
    """The JPEG to store for each file, or one line that says why there is none."""
    results: list[bytes | str] = []
    for path in paths:
        try:
            results.append(_encode(Path(path), image_size, quality) if path else "")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            results.append(f"{path} is not a readable image ({reason})")
    return results


def _encode(path: Path, image_size: int, quality: int) -> bytes:
    """The JPEG to store for one file.

    Raises:
        ValueError, OSError: it cannot be read or decoded.
    """
    content = path.read_bytes()
    pixels = decode_image(content, image_size)  # a JPEG that is stored as it is must decode, too
    if jpeg_size(content) == (image_size, image_size):
        return content
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
