"""The segments of a JPEG, checked from its first marker to its last without decoding a pixel.

A decoder meeting damage either gives up or fills up with grey and says nothing; which of the two depends on the
decoder. The structure tells most such damage in microseconds, and the same for all decoders.
"""

import re
from dataclasses import dataclass, field

from data_pipeline.fault import Fault

_SOF, _PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC2}), 0xC2  # Huffman-coded, sequential or progressive
_EOI, _SOS, _DRI = 0xD9, 0xDA, 0xDD
_TABLES = frozenset({0xC4, 0xDB, _DRI, 0xFE, *range(0xE0, 0xF0)})  # DHT, DQT, DRI, comment, application data
_MARKER = re.compile(rb"\xff[^\x00]")  # inside entropy-coded data, where 0xFF 0x00 stands for the byte 0xFF


@dataclass(slots=True)
class JpegStructure:
    """What the segments say. ``scan`` is the place of the first byte of entropy-coded data."""

    height: int = 0
    width: int = 0
    progressive: bool = False
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  # of each component: horizontal, vertical
    coded: set[int] = field(default_factory=set)  # components whose scan has come
    restart_interval: int = 0
    scans: int = 0
    scan: int = 0

    @property
    def plain(self) -> bool:
        """One scan without restart markers: nothing but the end marker can follow the header."""
        return not self.progressive and not self.restart_interval and self.scans == 1


class _Damaged(Exception):  # noqa: N818  # never leaves this file
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


def jpeg_structure(jpeg: bytes) -> JpegStructure | Fault:
    """Walk through all segments of ``jpeg`` up to its end marker; the first fault where there is one."""
    found = JpegStructure()
    try:
        _walk(jpeg, found)
    except _Damaged as damage:
        return damage.fault
    return found


def _walk(jpeg: bytes, found: JpegStructure) -> None:
    place = 2
    while True:
        place, marker = _marker(jpeg, place)
        if marker == _EOI:
            if not found.coded or (not found.progressive and len(found.coded) < len(found.sampling)):
                raise _Damaged(Fault("truncated", "the JPEG ends before all its components have come"))
            return
        segment = _segment(jpeg, place)
        place += 2 + len(segment)
        if marker in _SOF:
            _take_frame(segment, marker, found)
        elif marker == _SOS:
            components = _take_scan_header(segment, found)
            found.scan = found.scan or place
            place = _end_of_scan(jpeg, place, found, components)
        elif marker == _DRI and len(segment) == 2:
            found.restart_interval = int.from_bytes(segment)
        elif marker not in _TABLES or marker == _DRI:
            raise _undecodable(f"the JPEG has an unexpected marker 0x{marker:02X}")


def _marker(jpeg: bytes, place: int) -> tuple[int, int]:
    """Place behind the marker at ``place``, and the marker."""
    if place + 2 > len(jpeg):
        raise _cut()
    if jpeg[place] != 0xFF:
        raise _undecodable(f"the JPEG has no marker at its byte {place}")
    return place + 2, jpeg[place + 1]


def _segment(jpeg: bytes, place: int) -> bytes:
    if place + 2 > len(jpeg):
        raise _cut()
    length = int.from_bytes(jpeg[place : place + 2])
    if length < 2:
        raise _undecodable(f"the JPEG has a segment of length {length}")
    if place + length > len(jpeg):
        raise _cut()
    return jpeg[place + 2 : place + length]


def _take_frame(segment: bytes, marker: int, found: JpegStructure) -> None:
    if found.sampling:
        raise _undecodable("the JPEG has two frames")
    if len(segment) < 6 or segment[0] != 8 or segment[5] not in (1, 3, 4) or len(segment) != 6 + 3 * segment[5]:
        raise _undecodable("the JPEG has a frame header that is not of 8 bits and 1, 3 or 4 components")
    found.height, found.width = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])
    if not found.height or not found.width:
        raise _undecodable("the JPEG has no pixels")
    found.progressive = marker == _PROGRESSIVE
    for at in range(6, len(segment), 3):
        found.sampling[segment[at]] = segment[at + 1] >> 4, segment[at + 1] & 15
    factors = [factor for pair in found.sampling.values() for factor in pair]
    if len(found.sampling) != segment[5] or min(factors) < 1 or max(factors) > 4:
        raise _undecodable("the JPEG has components that are not told apart or sampled outside 1 to 4")


def _take_scan_header(segment: bytes, found: JpegStructure) -> set[int]:
    components = set(segment[1:-3:2])
    if len(segment) < 6 or len(segment) != 4 + 2 * segment[0] or len(components) != segment[0]:
        raise _undecodable("the JPEG has a malformed scan header")
    if not components <= found.sampling.keys() or (not found.progressive and components & found.coded):
        raise _undecodable("the JPEG has a scan of no component of its own")
    found.coded |= components
    found.scans += 1
    return components


def _end_of_scan(jpeg: bytes, place: int, found: JpegStructure, components: set[int]) -> int:
    """Place of the marker that ends the scan, having counted its restart markers."""
    restarts = 0
    while True:
        match = _MARKER.search(jpeg, place)
        if match is None:
            raise _cut()
        marker, place = jpeg[match.end() - 1], match.end()
        if marker == 0xFF:  # a fill byte: the marker begins one byte later
            place -= 1
            continue
        if not 0xD0 <= marker <= 0xD7:
            break
        if not found.restart_interval or marker - 0xD0 != restarts % 8:
            raise _undecodable("the JPEG has a restart marker where none belongs")
        restarts += 1
    if found.restart_interval and not found.progressive and restarts != _expected_restarts(found, components):
        raise _Damaged(Fault("truncated", f"the JPEG's scan ends early, behind {restarts} restart markers"))
    return match.end() - 2


def _expected_restarts(found: JpegStructure, components: set[int]) -> int:
    across, down = 8, 8  # pixels that one unit of an interleaved scan covers; else a block of the component
    width, height = found.width, found.height
    most = [max(pair[axis] for pair in found.sampling.values()) for axis in (0, 1)]
    if len(components) > 1:
        across, down = 8 * most[0], 8 * most[1]
    else:
        own = found.sampling[next(iter(components))]
        width, height = -(-width * own[0] // most[0]), -(-height * own[1] // most[1])
    units = -(-width // across) * -(-height // down)
    return -(-units // found.restart_interval) - 1


def _cut() -> _Damaged:
    return _Damaged(Fault("truncated", "the JPEG ends without its end marker"))


def _undecodable(detail: str) -> _Damaged:
    return _Damaged(Fault("undecodable", detail))
