"""Byte offsets of many records in few bytes: 4 a record, 5 in a file beyond 16 GiB, 8 beyond 4 TiB."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18  # records looked at together: some megabytes of temporaries

Places = slice | NDArray[np.integer]


class Offsets:
    """Offsets of ``count`` records in a file of ``file_bytes`` bytes, to be filled by ``put``.

    RecordIO aligns records to 4 bytes, so an offset is kept as a number of words: its low 32 bits and, where the
    file needs them, the bits above. The same for a record anywhere in the file: nothing is assumed about its order.
    """

    __slots__ = ("_high", "_low")

    def __init__(self, count: int, file_bytes: int) -> None:
        words = file_bytes // 4
        self._low = np.empty(count, dtype=np.uint32)
        self._high: NDArray[Any] | None = None  # uint8 or uint32
        if words > 1 << 32:
            self._high = np.empty(count, dtype=np.uint8 if words <= 1 << 40 else np.uint32)

    def __len__(self) -> int:
        return len(self._low)

    def __getitem__(self, place: int) -> int:
        words = self._low.item(place)
        if self._high is not None:
            words |= self._high.item(place) << 32
        return 4 * words

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._low.nbytes + (0 if self._high is None else self._high.nbytes)

    def at(self, places: Places) -> NDArray[np.int64]:
        """Offsets of the records at ``places``, int64 of the same length."""
        words: NDArray[np.int64] = self._low[places].astype(np.int64)
        if self._high is not None:
            words |= self._high[places].astype(np.int64) << 32
        words *= 4
        return words

    def put(self, places: Places, offsets: NDArray[np.int64]) -> None:
        """Set the offsets of the records at ``places``: int64, multiples of 4 inside the file."""
        words = offsets >> 2
        self._low[places] = words.astype(np.uint32)  # its low 32 bits
        if self._high is not None:
            self._high[places] = words >> 32

    def part(self, start: int, stop: int) -> "Offsets":
        """The offsets from ``start`` up to ``stop``; shares memory."""
        part = object.__new__(Offsets)
        part._low = self._low[start:stop]
        part._high = None if self._high is None else self._high[start:stop]
        return part

    def chunks(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """The offsets some at a time: (place of the first, offsets)."""
        for start in range(0, len(self), _CHUNK):
            yield start, self.at(slice(start, start + _CHUNK))

    def ascend(self) -> bool:
        """Whether each record lies behind the one before it."""
        last = -1
        for _, offsets in self.chunks():
            if offsets[0] <= last or not np.all(offsets[1:] > offsets[:-1]):
                return False
            last = int(offsets[-1])
        return True
