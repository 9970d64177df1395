"""Format and size of an encoded image from its first bytes, without decoding it."""

from typing import Literal

from data_pipeline.image_size import jpeg_size

ImageFormat = Literal["JPEG", "PNG", "WebP", "BMP"]

_PNG = b"\x89PNG\r\n\x1a\n"


def image_format(encoded: bytes) -> ImageFormat | None:
    """The format that the first bytes announce, None where it is none that both decoders read."""
    if encoded[:2] == b"\xff\xd8":
        return "JPEG"
    if encoded[:8] == _PNG:
        return "PNG"
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return "WebP"
    return "BMP" if encoded[:2] == b"BM" else None


def announced_size(encoded: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels as the header says; None where there is no such header or it is cut short."""
    match image_format(encoded):
        case "JPEG":
            return jpeg_size(encoded)
        case "PNG" if len(encoded) >= 24 and encoded[12:16] == b"IHDR":
            return int.from_bytes(encoded[20:24]), int.from_bytes(encoded[16:20])
        case "WebP":
            return _webp_size(encoded)
        case "BMP" if len(encoded) >= 26:
            return _bmp_size(encoded)
    return None


def _bmp_size(encoded: bytes) -> tuple[int, int]:
    if int.from_bytes(encoded[14:18], "little") == 12:  # OS/2: 16-bit sizes
        return int.from_bytes(encoded[20:22], "little"), int.from_bytes(encoded[18:20], "little")
    width, height = (int.from_bytes(encoded[at : at + 4], "little", signed=True) for at in (18, 22))
    return abs(height), abs(width)  # a negative height: rows from the top


def _webp_size(encoded: bytes) -> tuple[int, int] | None:
    if len(encoded) < 30:
        return None
    match encoded[12:16]:
        case b"VP8 ":
            width, height = (int.from_bytes(encoded[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        case b"VP8L":
            bits = int.from_bytes(encoded[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            width, height = (int.from_bytes(encoded[at : at + 3], "little") + 1 for at in (24, 27))
        case _:
            return None
    return height, width
