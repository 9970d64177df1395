"""Plain records of a whole batch, read by compiled code.

Shapes: B images of a batch, L bytes of a row.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_pipeline import native_library

SOUND, READ, CAREFULLY, TOO_LONG = range(4)
HEADER_BYTES = 32  # of a plain record, in front of its image
_SPARSE = 4  # times as large as the images themselves a batch of rows may be
_MAX_ROW = 1 << 20  # bytes; a damaged record may announce half a gigabyte


class Rows(NamedTuple):
    """What was read: rows [B, L] uint8 with zeros behind each image; identities, lengths [B] int64; states [B]."""

    rows: NDArray[np.uint8]
    identities: NDArray[np.int64]
    lengths: NDArray[np.int64]
    states: NDArray[np.uint8]


def read_rows(
    files: NDArray[np.int32], offsets: NDArray[np.int64], sizes: NDArray[np.int64], known_header: bytes
) -> Rows | None:
    """Plain records of one batch: B > 0 descriptors, byte offsets and likely sizes in bytes.

    A state is SOUND where the image is a JPEG that begins with ``known_header`` (all up to its entropy-coded data) and
    has no marker behind it but that of its end; READ where nothing is known of the image; CAREFULLY where the record
    is not plain or not whole, and its row holds anything.
    None where the rows would be mostly empty: one image is far longer than the others.
    Only where :func:`data_pipeline.native_library.available`.
    """
    length = int(sizes.max()) - HEADER_BYTES
    for _ in range(2):
        if not 1 <= length <= _MAX_ROW or len(sizes) * length > _SPARSE * int(sizes.sum()):
            return None
        found = _read(files, offsets, sizes, known_header, length)
        if not (found.states == TOO_LONG).any():
            return found
        # Sizes are guesses where keys are not in the order of the file.
        length = int(found.lengths.max())
        sizes = np.maximum(sizes, found.lengths + HEADER_BYTES)
    return None


def _read(
    files: NDArray[np.int32], offsets: NDArray[np.int64], sizes: NDArray[np.int64], known_header: bytes, length: int
) -> Rows:
    count = len(offsets)
    found = Rows(
        np.empty((count, length), np.uint8), np.empty(count, np.int64), np.empty(count, np.int64),
        np.empty(count, np.uint8),
    )  # fmt: skip
    native_library.call(
        "pfc_read_rows", count, files, offsets, sizes, known_header, len(known_header), found.rows, length,
        found.identities, found.lengths, found.states,
    )  # fmt: skip
    return found
