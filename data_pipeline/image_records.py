"""The content of one ``.rec`` and its ``.idx``, appended to open files so that writing can continue after a crash.

Nothing here grows with the number of images: the index is written along, and where each identity's run begins is
kept in a third file until the range records are made of it.
"""

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.record import pack_header, pack_image
from data_pipeline.recordio import frame

RANGE_BYTES = len(frame(pack_header((0.0, 0.0), 0)))  # of the header record, and of each range record
_RUN = struct.Struct("<q")
_RUNS_READ = 1 << 16


class Mark(NamedTuple):
    """A place in the three files to continue from: their sizes in bytes, and what the next image depends on."""

    records_bytes: int
    index_bytes: int
    runs_bytes: int
    images: int
    last_identity: int
    ascending: bool


class ImageRecords:
    """Appends images to ``records``, a line for each to ``index`` and the key where a run begins to ``runs``.

    The layout is ``RecordWriter``'s; ``plain`` leaves out header and range records, as im2rec does, and counts keys
    from 0. With ``mark`` the files (open for reading and writing) are cut back to it first.
    """

    def __init__(
        self, records: BinaryIO, index: BinaryIO, runs: BinaryIO, *, plain: bool = False, mark: Mark | None = None
    ) -> None:
        self._records, self._index, self._runs = records, index, runs
        self._plain = plain
        self._state = mark or Mark(0, 0, 0, 0, -1, True)
        for stream, size in zip((records, index, runs), self._state, strict=False):
            assert isinstance(size, int)
            stream.truncate(size)
            stream.seek(size)
        self._end, self._index_end, self._runs_end, self.num_images, self._last_identity, self._ascending = self._state
        self._key = self.num_images + (not plain)
        if not self._end and not plain:
            self._key = 0
            self._add(pack_header((0.0, 0.0), 0))  # the place of the header, filled when the counts are known

    def size_with(self, jpeg_bytes: int) -> int:
        """Bytes of the finished ``.rec`` if one more image of ``jpeg_bytes`` bytes were its last."""
        ranges = 0 if self._plain else RANGE_BYTES * (self._runs_end // _RUN.size + 1)
        return self._end + ranges + RANGE_BYTES + jpeg_bytes + 3

    def add(self, identity: int, jpeg: bytes) -> None:
        """Append one image.

        Raises:
            DataError: identity out of range.
        """
        key = self._key
        self._add(pack_image(identity, key, jpeg))
        self.num_images += 1
        if identity != self._last_identity:
            self._ascending = self._ascending and identity > self._last_identity
            self._last_identity = identity
            if self._ascending and not self._plain:
                self._runs.write(_RUN.pack(key))
                self._runs_end += _RUN.size

    def mark(self) -> Mark:
        """Bring everything to the disk and say where it stands."""
        for stream in (self._records, self._index, self._runs):
            stream.flush()
            os.fsync(stream.fileno())
        return Mark(
            self._end, self._index_end, self._runs_end, self.num_images, self._last_identity, self._ascending
        )  # fmt: skip

    def finish(self) -> None:
        """Append what follows the images and fill in the header; nothing may be added afterwards."""
        if self._plain:
            return
        first = self._key
        if self._ascending:
            for start, stop in self._ranges(first):
                self._add(pack_header((_rounded_down(start), _rounded_down(stop)), self._key))
        self._records.seek(0)
        self._records.write(frame(pack_header((_rounded_down(first), _rounded_down(self._key)), 0)))
        self._records.seek(self._end)

    def _ranges(self, end: int) -> Iterator[tuple[int, int]]:
        """[start, stop) of the keys of each identity's images."""
        self._runs.seek(0)
        start = -1
        while data := self._runs.read(_RUN.size * _RUNS_READ):
            for (stop,) in _RUN.iter_unpack(data):
                if start >= 0:
                    yield start, stop
                start = stop
        yield start, end

    def _add(self, content: bytes) -> None:
        framed = frame(content)
        line = b"%d\t%d\n" % (self._key, self._end)
        self._records.write(framed)
        self._index.write(line)
        self._end += len(framed)
        self._index_end += len(line)
        self._key += 1


def check_image(jpeg: bytes, number: int, identity: int, where: object) -> None:
    """Refuse an image without bytes; readers take such a record for a range record.

    Raises:
        DataError: names the file (``where``), the image and its identity.
    """
    if not jpeg:
        raise DataError(f"{where}: image {number} (identity {identity}) has no bytes: leave it out")


def _rounded_down(key: int) -> float:
    """The largest float32 that is at most ``key``."""
    value = np.float32(key)
    return float(np.nextafter(value, np.float32(0)) if int(value) > key else value)
