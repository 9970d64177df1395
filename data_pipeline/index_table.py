"""The index of one record file in memory: which records there are, in the order of their keys, and where they lie."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline.offsets import Offsets

_CHUNK = 1 << 18  # records moved together
_UINT32 = 1 << 32

Keys = range | NDArray[np.uint32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Index:
    """Records in ascending order of their keys.

    keys: a range where they follow one another, as nearly always, and then they cost nothing. in_file_order: whether
    ascending keys are ascending offsets. end: the byte behind the last record then.
    """

    keys: Keys
    offsets: Offsets
    in_file_order: bool
    end: int

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, place: int) -> int:
        """Key of the record at ``place``."""
        return int(self.keys[place])

    def place_of(self, key: int) -> int:
        """Place of the first record whose key is at least ``key``."""
        if isinstance(self.keys, range):
            return min(max(key - self.keys.start, 0), len(self.keys))
        return int(np.searchsorted(self.keys, key))

    def extent(self, place: int) -> tuple[int, int]:
        """Offset of the record at ``place`` and bytes to the next in the file (keys shuffled: twice the average)."""
        offset = self.offsets[place]
        if not self.in_file_order:
            return offset, 2 * self.end // len(self.offsets)
        return offset, (self.offsets[place + 1] if place + 1 < len(self.offsets) else self.end) - offset

    def extents(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """``extent`` of many records: offsets and sizes, [n] each."""
        offsets = self.offsets.at(places)
        if not self.in_file_order:
            return offsets, np.full(len(places), 2 * self.end // len(self.offsets))
        after = np.full(len(places), self.end)
        inside = np.flatnonzero(places + 1 < len(self.offsets))
        after[inside] = self.offsets.at(places[inside] + 1)
        return offsets, after - offsets

    def last_in_file(self) -> int:
        """Place of the record that lies last in the file."""
        if self.in_file_order:
            return len(self) - 1
        largest = [(int(offsets.max()), start + int(offsets.argmax())) for start, offsets in self.offsets.chunks()]
        return max(largest)[1]

    def part(self, start: int, stop: int) -> "Index":
        """The records from place ``start`` up to ``stop``; shares memory."""
        end = self.offsets[stop] if self.in_file_order and stop < len(self) else self.end
        return Index(self.keys[start:stop], self.offsets.part(start, stop), self.in_file_order, end)


class RepeatedKeyError(ValueError):
    """An index holds ``key`` twice."""

    def __init__(self, key: int) -> None:
        super().__init__(f"key {key} twice")
        self.key = key


class IndexBuilder:
    """Takes keys and offsets chunk by chunk, in any order, and sorts them by key in the end.

    Beside the result it needs 4 bytes a record for the keys (8 where one is no uint32), and as much as the result
    once more where keys are shuffled, as im2rec leaves them.
    """

    def __init__(self, max_records: int, file_bytes: int) -> None:
        self._file_bytes = file_bytes
        self._offsets = Offsets(max_records, file_bytes)
        self._keys: NDArray[np.uint32] | NDArray[np.int64] = np.empty(max_records, dtype=np.uint32)
        self._count = 0

    def add(self, keys: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        """Append records: int64 [n] each; offsets are multiples of 4 inside the file."""
        if not len(keys):
            return
        places = slice(self._count, self._count + len(keys))
        if self._keys.dtype == np.uint32 and (keys.min() < 0 or keys.max() >= _UINT32):
            self._keys = self._keys.astype(np.int64)
        self._keys[places] = keys
        self._offsets.put(places, offsets)
        self._count = places.stop

    def finish(self) -> Index:
        """The index; the builder is spent.

        Raises:
            RepeatedKeyError: a key comes twice.
        """
        keys, offsets = self._keys[: self._count], self._offsets.part(0, self._count)
        del self._keys, self._offsets
        if not np.all(keys[1:] > keys[:-1]):
            first, last = int(keys.min()), int(keys.max())
            if last - first + 1 == len(keys) and _all_different(keys, first):
                return self._index(range(first, last + 1), _scattered(keys, first, offsets, self._file_bytes))
            order, keys = _sorted(keys)
            repeated = np.flatnonzero(keys[1:] == keys[:-1])
            if len(repeated):
                raise RepeatedKeyError(int(keys[repeated[0]]))
            return self._index(keys, _gathered(order, offsets, self._file_bytes))
        if len(keys) and int(keys[-1]) - int(keys[0]) + 1 == len(keys):
            return self._index(range(int(keys[0]), int(keys[-1]) + 1), offsets)
        return self._index(keys, offsets)

    def _index(self, keys: Keys, offsets: Offsets) -> Index:
        return Index(keys, offsets, offsets.ascend(), self._file_bytes)


def _all_different(keys: NDArray[Any], first: int) -> bool:
    met = np.zeros(len(keys), dtype=np.bool_)
    for start in range(0, len(keys), _CHUNK):
        met[keys[start : start + _CHUNK].astype(np.int64) - first] = True
    return bool(met.all())


def _sorted(keys: NDArray[Any]) -> tuple[NDArray[np.integer], NDArray[Any]]:
    """The places of ``keys`` in ascending order of the keys, and the keys in that order."""
    if keys.dtype != np.uint32 or len(keys) > _UINT32:
        order = np.argsort(keys, kind="stable")
        return order, keys[order]
    # Key and place in one number: sorted where it lies, several times as fast.
    pairs = np.arange(len(keys), dtype=np.uint64)
    halves = pairs.view(np.uint32).reshape(-1, 2)
    halves[:, 1] = keys  # little-endian: the upper half
    pairs.sort()
    return halves[:, 0], halves[:, 1].copy()


def _scattered(keys: NDArray[Any], first: int, offsets: Offsets, file_bytes: int) -> Offsets:
    """Offsets in the order of keys that are all the numbers from ``first`` on: no sorting."""
    result = Offsets(len(keys), file_bytes)
    for start in range(0, len(keys), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        result.put(keys[chunk].astype(np.int64) - first, offsets.at(chunk))
    return result


def _gathered(order: NDArray[np.integer], offsets: Offsets, file_bytes: int) -> Offsets:
    result = Offsets(len(order), file_bytes)
    for start in range(0, len(order), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        result.put(chunk, offsets.at(order[chunk]))
    return result
