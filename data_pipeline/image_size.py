"""Size of a JPEG from its header, without decoding it."""

# Start-of-frame markers; C4, C8 and CC in the same range mean something else.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


# What stood before the frame of the last JPEG. Images of one data set come from one encoder and mostly share these
# hundreds of bytes, so the segments need not be walked again: 0.4 us instead of 1.5.
_before_frame = b"\xff\xd8"


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels, None where ``encoded`` is no JPEG or ends before it says."""
    global _before_frame
    known = _before_frame  # other threads may replace it
    if encoded[:2] != b"\xff\xd8":
        return None
    place = len(known) if encoded.startswith(known) else 2
    while place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if marker in _FRAMES:
            if place != len(known):
                _before_frame = encoded[:place]
            return int.from_bytes(encoded[place + 5 : place + 7]), int.from_bytes(encoded[place + 7 : place + 9])
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _STANDALONE:
            place += 2
        else:
            place += 2 + max(int.from_bytes(encoded[place + 2 : place + 4]), 2)
    return None
