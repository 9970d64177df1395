"""Reads the images of one or several ``.rec`` files by position, whoever packed them.

A record shard is one file; positions run through the shards in the order given, and inside a shard in the order
of the keys. Opening reads the index and two records' heads, never an image.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.properties import Properties, read_properties
from data_pipeline.record import Record
from data_pipeline.record_shard import RecordShard

RecordPath = str | os.PathLike[str]


class RecordReader(Sequence[Record]):
    """Images of ``records``: a ``.rec`` path or a list of them, each with its ``.idx`` beside it.

    ``len(reader)`` counts images only; ``reader[i]`` is a ``Record`` with ``identity`` and ``jpeg``. Header and
    identity range records of InsightFace's own files are left out. Pickled copies and forked processes work.

    Raises:
        DataError: missing or wrong index, truncated file, no images.
    """

    def __init__(self, records: RecordPath | Sequence[RecordPath]) -> None:
        listed = [records] if isinstance(records, str | os.PathLike) else list(records)
        if not listed:
            raise DataError("the list of record files is empty: name at least one .rec file")
        self.shards = [RecordShard(Path(path)) for path in listed]
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
    """Refuse a data set with an identity outside [0, num_identities).

    Raises:
        DataError: names the first image concerned.
    """
    outside = np.flatnonzero((reader.identities < 0) | (reader.identities >= num_identities))
    if len(outside):
        position = int(outside[0])
        raise DataError(
            f"image {position} has identity {reader.identities[position]}, outside [0, {num_identities}) "
            f"({reader.describe(position)}; {len(outside)} such images): set num_identities to at least "
            f"{int(reader.identities.max()) + 1} or pack the data again"
        )
