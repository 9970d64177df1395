"""Reads the images of one or several ``.rec`` files by position, whoever packed them.

A record shard is one file; positions run through the shards in the order given, and inside a shard in the order
of the keys. Opening reads the index and the heads of two or three records, never an image: 10 million records in
about 1 s and 100 MiB, of which 60 MiB stay, in each process that opens them (identities are read when asked for).
"""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline import native_library, row_reading
from data_pipeline.errors import DataError
from data_pipeline.image_rows import ImageRows
from data_pipeline.properties import Properties, read_properties
from data_pipeline.record import Record
from data_pipeline.record_set import RecordPath as RecordPath
from data_pipeline.record_set import record_paths
from data_pipeline.record_shard import LabelKind, RecordShard


class RecordReader(Sequence[Record]):
    """Images of ``records``: a ``.rec`` file, a folder of them (as ``record_paths`` says), or a list of these.

    Each file's ``.idx`` lies beside it; one without is scanned at every opening.

    ``len(reader)`` counts images only; ``reader[i]`` is a ``Record`` with ``identity`` and ``jpeg``. Header and
    identity range records of InsightFace's own files are left out. Pickled copies and forked processes work.

    ``skip_bad``: for readers that can do without some images (``make_loader(bad_images="skip")``). A file that ends
    early opens all the same, and ``identities`` has -1 for a record that cannot be read; reading it is an error still.

    Raises:
        DataError: missing or wrong index, truncated file, no images.
    """

    def __init__(self, records: RecordPath | Sequence[RecordPath], *, skip_bad: bool = False) -> None:
        self.shards = [RecordShard(path, skip_bad) for path in record_paths(records)]
        self.skip_bad = skip_bad
        self._starts = [0, *accumulate(len(shard) for shard in self.shards)]

    @property
    def paths(self) -> list[Path]:
        """The files, in order."""
        return [shard.path for shard in self.shards]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, position: int) -> Record:  # type: ignore[override]  # no slices: a record is one read
        shard, place = self._locate(position)
        return shard.read(place)

    def will_need(self, start: int, stop: int) -> None:
        """Have the images at positions [start, stop) read into the page cache, in the background."""
        for shard, first in zip(self.shards, self._starts[:-1], strict=True):
            shard.will_need(max(start - first, 0), min(stop - first, len(shard)))

    def read_batch(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[bytes]]:
        """Identities [n] and image bytes at ``positions`` [n], each in [0, len(self)): ``self[i]`` for each, faster.

        Raises:
            DataError: as reading one of them.
        """
        if len(self.shards) == 1:
            listed, jpegs = self.shards[0].read_batch(positions)
            return np.array(listed, dtype=np.int64), jpegs
        identities = np.empty(len(positions), dtype=np.int64)
        jpegs = [b""] * len(positions)
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(numbers).tolist():
            where = np.flatnonzero(numbers == number)
            found = self.shards[number].read_batch(positions[where] - self._starts[number])
            for row, identity, jpeg in zip(where.tolist(), *found, strict=True):
                identities[row], jpegs[row] = identity, jpeg
        return identities, jpegs

    def read_rows(
        self, positions: NDArray[np.int64], known_header: bytes
    ) -> tuple[NDArray[np.int64], ImageRows, list[int]] | None:
        """Identities [n], images and places of those that do not begin with ``known_header`` or that have a marker
        inside: ``read_batch`` without a Python object for each image. All others are whole JPEGs. None where that
        cannot be: no compiled reader, nothing to read, or one image is far longer than the others.

        Raises:
            DataError: as reading one of them.
        """
        if not len(positions) or not native_library.available():
            return None
        found = row_reading.read_rows(*self._extents(positions), known_header)
        if found is None:
            return None
        for place in np.flatnonzero(found.states == row_reading.CAREFULLY).tolist():
            record = self[int(positions[place])]
            if len(record.jpeg) > found.rows.shape[1]:
                return None
            found.identities[place], found.lengths[place] = record.identity, len(record.jpeg)
            found.rows[place] = 0
            found.rows[place, : len(record.jpeg)] = np.frombuffer(record.jpeg, np.uint8)
        alike = found.states == row_reading.SOUND
        images = ImageRows(found.rows, found.lengths, alike, known_header)
        return found.identities, images, np.flatnonzero(~alike).tolist()

    def _extents(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """File descriptors, byte offsets and about how many bytes, [n] each."""
        descriptors = np.empty(len(positions), np.int32)
        offsets, sizes = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        for number in np.unique(numbers).tolist():
            where = numbers == number
            places = positions[where] - self._starts[number]
            descriptors[where], offsets[where], sizes[where] = self.shards[number].extents(places)
        return descriptors, offsets, sizes

    def label_kind(self, position: int) -> LabelKind:
        """How the identity of an image is written: "scalar", "two-float identity" or "vector"."""
        shard, place = self._locate(position)
        return shard.label_kind(place)

    def describe(self, position: int) -> str:
        """Where an image lies, for messages: file, record key and byte offset."""
        shard, place = self._locate(position)
        return shard.describe(place)

    @cached_property
    def identities(self) -> NDArray[np.int64]:
        """Identity of every image, [len(reader)]. Reads the records' headers once, not the images.

        Raises:
            DataError: a label that is no identity.
        """
        if len(self.shards) == 1:
            return self.shards[0].identities()
        return np.concatenate([shard.identities() for shard in self.shards])

    @cached_property
    def num_identities(self) -> int:
        """Identities of the data set: from the ``property`` files where every shard has one, else largest id + 1."""
        found = [read_properties(path.parent) for path in self.paths]
        if all(found):
            return max(each.num_identities for each in found if each)
        return int(self.identities.max()) + 1

    @property
    def properties(self) -> Properties | None:
        """The ``property`` file beside the first shard."""
        return read_properties(self.paths[0].parent)

    def close(self) -> None:
        """Close the files."""
        for shard in self.shards:
            shard.close()

    def __enter__(self) -> "RecordReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _locate(self, position: int) -> tuple[RecordShard, int]:
        count = len(self)
        if not -count <= position < count:
            raise IndexError(f"image {position} of {count}")
        position %= count
        number = bisect_right(self._starts, position) - 1
        return self.shards[number], position - self._starts[number]


def check_identities(reader: RecordReader, num_identities: int) -> None:
    """Refuse a data set with an identity outside [0, num_identities); a reader that skips bad records may have -1.

    Raises:
        DataError: names the first image concerned.
    """
    lowest = -1 if reader.skip_bad else 0
    outside = np.flatnonzero((reader.identities < lowest) | (reader.identities >= num_identities))
    if len(outside):
        position = int(outside[0])
        raise DataError(
            f"image {position} has identity {reader.identities[position]}, outside [0, {num_identities}) "
            f"({reader.describe(position)}; {len(outside)} such images): set num_identities to at least "
            f"{int(reader.identities.max()) + 1} or pack the data again"
        )
