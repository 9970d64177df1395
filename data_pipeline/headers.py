"""Identities of many records from their headers alone, in bounded memory."""

import numpy as np
from numpy.typing import NDArray

from data_pipeline.record import HEADER, decode_identities
from data_pipeline.recordio import FIRST, HEAD_BYTES, LENGTH_BITS, MAGIC, MAX_PART, RecordFile

WORDS = (HEAD_BYTES + HEADER.size) // 4 + 2  # part head, image header, two labels
_NEEDED = 4 * WORDS
_WINDOW = 1 << 22  # bytes read together
_WORTH_READING = 1 << 14  # bytes a record: where records are larger, each header is a read of its own


def read_identities(file: RecordFile, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Identity of the records at ``offsets`` [n], ascending; -1 where the header must be looked at with care.

    That is a record cut inside its header, the last bytes of a file, no record at all, or labels that are no identity.
    """
    words = _first_words(file, offsets)
    magic, head, flag, label = words[:, 0], words[:, 1], words[:, 2], words[:, 3]
    mark = words[:, 6].astype(np.uint64) | words[:, 7].astype(np.uint64) << np.uint64(32)
    first = np.where(flag == 0, label, words[:, 8]).view(np.float32)
    identities = decode_identities(flag, mark, first, np.ascontiguousarray(words[:, 9]).view(np.float32))
    whole = (magic == MAGIC) & ((head >> LENGTH_BITS) <= FIRST)
    whole &= (head & MAX_PART) >= HEADER.size + 4 * np.minimum(flag, 2).astype(np.int64)
    identities[~whole] = -1
    return identities


def _first_words(file: RecordFile, offsets: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The first ``WORDS`` words of each record, uint32 [n, WORDS]; all zeros where the file ends before them."""
    table = np.zeros((len(offsets), WORDS), dtype="<u4")
    rows = table.data.cast("B")
    spread = int(offsets[-1] - offsets[0]) if len(offsets) else 0
    window = np.empty(min(_WINDOW, spread + _NEEDED), dtype=np.uint8)
    start = 0
    while start < len(offsets):
        begin = int(offsets[start])
        stop = int(np.searchsorted(offsets, begin + _WINDOW - _NEEDED, side="right"))
        reach = int(offsets[stop - 1]) - begin + _NEEDED
        if reach <= (stop - start) * _WORTH_READING:
            got = file.peek_into(window.data[:reach], begin)
            window[got:reach] = 0
            at = (offsets[start:stop] - begin) // 4
            table[start:stop] = window[: reach // 4 * 4].view("<u4")[at[:, None] + np.arange(WORDS)]
            table[start:stop][4 * at + _NEEDED > got] = 0
        else:
            for row in range(start, stop):
                if file.peek_into(rows[row * _NEEDED : (row + 1) * _NEEDED], int(offsets[row])) < _NEEDED:
                    table[row] = 0
        start = stop
    return table
