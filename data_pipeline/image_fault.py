"""What is wrong with an encoded image, as far as its bytes tell without decoding a JPEG.

Both decoders get only what passes here, so that they agree: a decoder of its own accord fills up a JPEG that ends
early, reads formats that the other does not know, or allocates what a crafted header asks for.
"""

import re
import zlib

from data_pipeline.decode_image import decode_image, too_many_pixels
from data_pipeline.fault import Fault
from data_pipeline.image_header import announced_size, image_format
from data_pipeline.jpeg_structure import jpeg_structure

_END_OF_JPEG = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00]")  # in entropy-coded data 0xFF 0x00 stands for the byte 0xFF


class ImageCheck:
    """Finds the fault of encoded images, in a few microseconds for a sound JPEG.

    ``required_size`` is the height and width in pixels that an image must have; None: any. The images of a data set
    mostly share one header (tables and size), so the last sound one is remembered; it changes no result.
    """

    def __init__(self, required_size: int | None = None) -> None:
        self._required = required_size
        self._header = b"\0"  # of a plain JPEG, up to its entropy-coded data; no image starts with a zero byte

    @property
    def known_header(self) -> bytes:
        """Header of the last sound plain JPEG: its first byte up to its entropy-coded data.

        An image with this header is sound if its end marker is the first marker behind it.
        """
        return self._header

    def __call__(self, encoded: bytes) -> Fault | None:
        """The fault of an encoded image, None where a decoder may be asked."""
        header = self._header
        if encoded.startswith(header) and encoded.endswith(_END_OF_JPEG):
            # Sound where the end marker is the first marker in the entropy-coded data.
            marker = _MARKER.search(encoded, len(header))
            if marker and marker.end() == len(encoded):
                return None
        return self._carefully(encoded)

    def _carefully(self, encoded: bytes) -> Fault | None:
        if not encoded:
            return Fault("empty", "no bytes")
        kind = image_format(encoded)
        if kind is None:
            return Fault("undecodable", "no JPEG, PNG, WebP or BMP")
        if kind == "JPEG":
            found = jpeg_structure(encoded)
            if isinstance(found, Fault):
                return found
            fault = self._size_fault((found.height, found.width), len(encoded))
            if fault is None and found.plain:
                self._header = encoded[: found.scan]
            return fault
        fault = _png_fault(encoded) if kind == "PNG" else _announced_length_fault(encoded, kind)
        if fault:
            return fault
        size = announced_size(encoded)
        if size is None:
            return Fault("undecodable", f"the {kind} has no readable header")
        return self._size_fault(size, len(encoded)) or (None if kind == "PNG" else _decoding_fault(encoded))

    def _size_fault(self, size: tuple[int, int], encoded_bytes: int) -> Fault | None:
        if not size[0] * size[1] or too_many_pixels(size[0] * size[1], encoded_bytes):
            return Fault("undecodable", f"{size[1]}x{size[0]} pixels are none, or too many for {encoded_bytes} bytes")
        if self._required is not None and size != (self._required, self._required):
            return Fault("wrong_size", f"{size[1]}x{size[0]} pixels instead of {self._required}x{self._required}")
        return None


def _png_fault(png: bytes) -> Fault | None:
    """Every chunk up to IEND whole and with its check sum, which one decoder looks at and the other does not."""
    place = 8
    while place + 12 <= len(png):
        end = place + 12 + int.from_bytes(png[place : place + 4])
        if end > len(png):
            break
        if zlib.crc32(png[place + 4 : end - 4]) != int.from_bytes(png[end - 4 : end]):
            return Fault("undecodable", f"the PNG has a damaged chunk at its byte {place}")
        if png[place + 4 : place + 8] == b"IEND":
            return None
        place = end
    return Fault("truncated", "the PNG ends early")


def _announced_length_fault(encoded: bytes, kind: str) -> Fault | None:
    at, more = (4, 8) if kind == "WebP" else (2, 0)
    announced = int.from_bytes(encoded[at : at + 4], "little") + more
    return Fault("truncated", f"the {kind} ends early") if announced > len(encoded) else None


def _decoding_fault(encoded: bytes) -> Fault | None:
    """Formats that are rare here and have no check of their own: Pillow decides for both decoders."""
    try:
        decode_image(encoded)
    except ValueError as error:
        return Fault("undecodable", str(error))
    return None
