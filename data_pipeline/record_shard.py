"""One ``.rec`` file as a sequence of images: which records are images, and their identities in bulk."""

import struct
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.index import load_index
from data_pipeline.record import (
    HEADER,
    MAX_SCALAR,
    Header,
    Record,
    bad_label,
    decode_identities,
    identity_of,
    unpack_header,
)
from data_pipeline.recordio import FIRST, HEAD_BYTES, LENGTH_BITS, MAGIC, MAX_FIRST_READ, MAX_PART, RecordFile

_PLAIN = struct.Struct("<IIIfQQ")  # head of an only part and the image header, read together
_CHUNK = 1 << 16  # records looked at together: some megabytes of temporaries


def _sizes(offsets: NDArray[np.int64], file_bytes: int) -> NDArray[np.int32]:
    """Bytes from each record to the next one in the file, [records]; no more than one read takes."""
    by_place = np.argsort(offsets, kind="stable")
    sizes = np.empty(len(offsets), dtype=np.int32)
    sizes[by_place] = np.minimum(np.diff(offsets[by_place], append=file_bytes), MAX_FIRST_READ)
    return sizes


class RecordShard:
    """The images of one file, in the order of their keys; position here counts from 0 in this file.

    ``layout`` is "insightface" when record 0 is the global header, else "plain" (im2rec: every record an image).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = RecordFile(path)
        index = load_index(path, self._file.size)
        if not len(index.keys):
            raise DataError(f"{path}: its index lists no records: there is nothing to read")
        # A cut file loses its end first, so the record that lies last tells.
        last = int(np.argmax(index.offsets))
        self._file.end(int(index.offsets[last]), int(index.keys[last]))
        self.keys, self.offsets = index.keys, index.offsets
        self._sizes = _sizes(index.offsets, self._file.size)
        self.num_range_records = 0
        self.layout: Literal["insightface", "plain"] = "plain"
        first_range = self._first_range_key()
        if first_range is not None:
            images = slice(1, int(np.searchsorted(self.keys, first_range)))
            self.layout = "insightface"
            self.num_range_records = len(self.keys) - images.stop
            self.keys, self.offsets, self._sizes = self.keys[images], self.offsets[images], self._sizes[images]
        if not len(self.keys):
            raise DataError(f"{path} holds no images: pack the data again")

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, place: int) -> Record:
        """The image at ``place``.

        Raises:
            DataError: damaged record, label that is no identity, or no image bytes.
        """
        offset, size = int(self.offsets[place]), int(self._sizes[place])
        raw = self._file.peek(offset, size)
        if len(raw) >= _PLAIN.size:
            magic, length, flag, label, _, _ = _PLAIN.unpack_from(raw)
            # Nearly every image: one part, a scalar label, all of it read. Whatever else goes the careful way below.
            fits = magic == MAGIC and HEADER.size < length <= len(raw) - HEAD_BYTES
            if fits and flag == 0 and 0 <= label < MAX_SCALAR and label.is_integer():
                return Record(int(label), raw[_PLAIN.size : HEAD_BYTES + length])
        key = int(self.keys[place])
        content, header = self._content(offset, key, size)
        where = f"{self.path}: record {key}"
        if header.size == len(content):
            raise DataError(f"{self.describe(place)} holds no image bytes: pack the data again")
        return Record(identity_of(header, where), content[header.size :])

    def describe(self, place: int) -> str:
        """File, record key and byte offset of an image."""
        return f"{self.path}, record {self.keys[place]} at byte {self.offsets[place]}"

    def identities(self) -> NDArray[np.int64]:
        """Identity of every image, [len(self)], from the headers alone.

        Raises:
            DataError: damaged record, or a label that is no identity.
        """
        # Offsets are multiples of 4, so the file is a row of words; what a header needs is picked out of it.
        words = np.memmap(self.path, dtype="<u4", mode="r", shape=(self._file.size // 4,))
        parts = [self._identities(words, slice(start, start + _CHUNK)) for start in range(0, len(self), _CHUNK)]
        return np.concatenate(parts)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _identities(self, words: NDArray[np.uint32], chunk: slice) -> NDArray[np.int64]:
        at = self.offsets[chunk] // 4
        needed = (HEAD_BYTES + HEADER.size) // 4 + 2  # words: part head, header, two labels
        reach = np.minimum(at[:, None] + np.arange(needed), len(words) - 1)
        table = words[reach]
        magic, head, flag, label = table[:, 0], table[:, 1], table[:, 2], table[:, 3]
        mark = table[:, 6].astype(np.uint64) | table[:, 7].astype(np.uint64) << np.uint64(32)
        first = np.where(flag == 0, label, table[:, 8]).view(np.float32)
        identities = decode_identities(flag, mark, first, np.ascontiguousarray(table[:, 9]).view(np.float32))
        # Anything unusual (cut in the header, no record, no identity, end of file) goes the careful way, which
        # either decodes it or names what is wrong.
        whole = (head & MAX_PART) >= HEADER.size + 4 * np.minimum(flag, 2).astype(np.int64)
        whole &= (head >> LENGTH_BITS) <= FIRST
        careful = (magic != MAGIC) | ~whole | (identities < 0) | (at + needed > len(words))
        for place in np.flatnonzero(careful):
            key = int(self.keys[chunk][place])
            _, header = self._content(int(at[place]) * 4, key)
            identities[place] = identity_of(header, f"{self.path}: record {key}")
        return identities

    def _content(self, offset: int, key: int, guess: int = 4096) -> tuple[bytes, Header]:
        content = self._file.read(offset, key, guess)
        return content, unpack_header(content, f"{self.path}: record {key}")

    def _first_range_key(self) -> int | None:
        """Key of the first identity range record when record 0 is a global header, else None.

        The header says it in float32, exact below 2**24; above, the border is the first record without image
        bytes among the keys that round to the same number.
        """
        if self.keys[0] != 0:
            return None
        content, header = self._content(int(self.offsets[0]), 0)
        if header.flag != 2 or header.size != len(content):
            return None
        first, end = header.labels
        if not (1 <= first <= end and first.is_integer() and end.is_integer()):
            raise bad_label(f"{self.path}: record 0 (global header)", header.labels)
        if first < 1 << 24:
            return int(first)
        spacing = int(np.spacing(np.float32(first)))
        nearby = slice(*np.searchsorted(self.keys, [int(first) - spacing, int(first) + spacing + 1]))
        for offset, key in zip(self.offsets[nearby], self.keys[nearby], strict=True):
            content, header = self._content(int(offset), int(key))
            if header.size == len(content):
                return int(key)
        return int(first) + spacing + 1
