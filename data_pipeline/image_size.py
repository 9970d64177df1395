"""Size of a JPEG from its header, without decoding it."""

# Start-of-frame markers; C4, C8 and CC in the same range mean something else.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def jpeg_size(encoded: bytes) -> tuple[int, int] | None:
    """(height, width) in pixels, None where ``encoded`` is no JPEG or ends before it says."""
    if encoded[:2] != b"\xff\xd8":
        return None
    place = 2
    while place + 9 <= len(encoded) and encoded[place] == 0xFF:
        marker = encoded[place + 1]
        if marker in _FRAMES:
            return int.from_bytes(encoded[place + 5 : place + 7]), int.from_bytes(encoded[place + 7 : place + 9])
        if marker == 0xFF:  # fill byte
            place += 1
        elif marker in _STANDALONE:
            place += 2
        else:
            place += 2 + max(int.from_bytes(encoded[place + 2 : place + 4]), 2)
    return None
