"""The strict check of one image: structure, size, a full decode, and whether a JPEG's data reach its last block."""

import numpy as np
from numpy.typing import NDArray

from data_pipeline.decode_image import decode_image
from data_pipeline.fault import Fault
from data_pipeline.image_fault import ImageCheck
from data_pipeline.image_header import image_format

_BLOCK = 8  # pixels
_PADDING = b"\x55" * 256  # bits that decode to something else than the grey that a decoder fills up with


def strict_fault(encoded: bytes, check: ImageCheck) -> Fault | None:
    """The fault of an encoded image, None where every byte of its pixels is there and decodes.

    A scan that ends early in front of an end marker decodes without a complaint: the rest becomes grey. The last
    block tells: where it is flat, the image is decoded again with other bits behind its data, which only an image
    that lacks data takes for its own.
    """
    if fault := check(encoded):
        return fault
    try:
        pixels = decode_image(encoded)
        if image_format(encoded) == "JPEG" and _last_block_is_flat(pixels):
            end = encoded.rindex(b"\xff\xd9")
            again = decode_image(encoded[:end] + _PADDING + encoded[end:])
            if not np.array_equal(pixels, again):
                return Fault("truncated", "the JPEG's scan ends early; decoders fill the rest with grey")
    except ValueError as error:
        return Fault("undecodable", str(error))
    return None


def _last_block_is_flat(pixels: NDArray[np.uint8]) -> bool:
    top, left = ((length - 1) // _BLOCK * _BLOCK for length in pixels.shape[:2])
    block = pixels[top:, left:]
    return bool((block == block[0, 0]).all())
