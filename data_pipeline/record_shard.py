"""One ``.rec`` file as a sequence of images: which records are images, and their identities in bulk."""

import struct
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import BadRecordError, DataError
from data_pipeline.headers import read_identities
from data_pipeline.index import open_index
from data_pipeline.index_table import Keys
from data_pipeline.offsets import Offsets
from data_pipeline.record import (
    HEADER,
    MAX_SCALAR,
    SPLIT_BITS,
    Header,
    Record,
    bad_label,
    identity_of,
    unpack_header,
)
from data_pipeline.recordio import HEAD_BYTES, MAGIC, MAX_FIRST_READ, RecordFile

LabelKind = Literal["scalar", "two-float identity", "vector"]

_PLAIN = struct.Struct("<IIIf")  # head of an only part and the beginning of the image header, read together
_GAP = 1 << 20  # bytes: records that begin nearer to each other are read in one stretch
_CHUNK = 1 << 16  # records looked at together: some megabytes of temporaries


class RecordShard:
    """The images of one file, in the order of their keys; position here counts from 0 in this file.

    ``layout`` is "insightface" when record 0 is the global header, else "plain" (im2rec: every record an image).
    ``skip_bad``: a cut file opens, and a record without an identity counts as -1 in ``identities()``.
    """

    def __init__(self, path: Path, skip_bad: bool = False) -> None:
        self.path = path
        self._skip_bad = skip_bad
        self._file = RecordFile(path)
        index = open_index(self._file, skip_bad)
        if not len(index):
            raise DataError(f"{path}: its index lists no records: there is nothing to read")
        if not skip_bad or self._file.size < HEAD_BYTES:
            # A cut file loses its end first, so the record that lies last tells.
            last = index.last_in_file()
            self._file.end(index.offsets[last], index.key(last))
        self._index = index
        self.num_range_records = 0
        self.layout: Literal["insightface", "plain"] = "plain"
        first_range = self._first_range_key()
        if first_range is not None:
            stop = index.place_of(first_range)
            self.layout = "insightface"
            self.num_range_records = len(index) - stop
            self._check_border(stop)
            self._index = index.part(1, stop)
        if not len(self._index):
            raise DataError(f"{path} holds no images: pack the data again")

    def __len__(self) -> int:
        return len(self._index)

    @property
    def keys(self) -> Keys:
        """Key of every image."""
        return self._index.keys

    @property
    def offsets(self) -> Offsets:
        """Byte offset of every image."""
        return self._index.offsets

    def read(self, place: int) -> Record:
        """The image at ``place``.

        Raises:
            BadRecordError: damaged record, label that is no identity, no image bytes, or the disk fails.
        """
        offset, size = self._index.extent(place)
        content, header = self._content(offset, self._index.key(place), size)
        if header.size == len(content):
            raise BadRecordError("empty", f"{self.describe(place)} holds no image bytes: pack the data again")
        return Record(identity_of(header, f"{self.path}: record {self._index.key(place)}"), content[header.size :])

    def read_batch(self, places: NDArray[np.int64]) -> tuple[list[int], list[bytes]]:
        """Identities and image bytes at ``places`` [n], as ``read`` gives them, in 3 us an image instead of 5."""
        identities, jpegs = [], []
        offsets, sizes = self._index.extents(places)
        peek, unpack = self._file.peek, _PLAIN.unpack_from
        rows = zip(places.tolist(), offsets.tolist(), np.minimum(sizes, MAX_FIRST_READ).tolist(), strict=True)
        for place, offset, size in rows:
            raw = peek(offset, size)
            if len(raw) >= HEAD_BYTES + HEADER.size:
                magic, length, flag, label = unpack(raw)
                # Nearly every image: one part, a scalar label, all of it read. Whatever else goes the careful way.
                fits = magic == MAGIC and HEADER.size < length <= len(raw) - HEAD_BYTES
                if fits and flag == 0 and 0 <= label < MAX_SCALAR and label.is_integer():
                    identities.append(int(label))
                    jpegs.append(raw[HEAD_BYTES + HEADER.size : HEAD_BYTES + length])
                    continue
            record = self.read(place)
            identities.append(record.identity)
            jpegs.append(record.jpeg)
        return identities, jpegs

    def extents(self, places: NDArray[np.int64]) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """Where the records at ``places`` [n] lie: the file's descriptor, byte offsets and about how many bytes [n]."""
        offsets, sizes = self._index.extents(places)
        return self._file.descriptor, offsets, np.minimum(sizes, MAX_FIRST_READ)

    def will_need(self, start: int, stop: int) -> None:
        """Have the images at places [start, stop) read into the page cache: neighbours in the file as one stretch."""
        if start >= stop:
            return
        offsets, sizes = self._index.extents(np.arange(start, stop))
        by_offset = np.argsort(offsets, kind="stable")
        offsets, ends = offsets[by_offset], (offsets + sizes)[by_offset]
        breaks = np.flatnonzero(np.diff(offsets) > _GAP) + 1
        for first, last in zip([0, *breaks], [*(breaks - 1), -1], strict=True):
            self._file.will_need(int(offsets[first]), int(ends[last]))

    def describe(self, place: int) -> str:
        """File, record key and byte offset of an image."""
        return f"{self.path}, record {self._index.key(place)} at byte {self._index.offsets[place]}"

    def identities(self) -> NDArray[np.int64]:
        """Identity of every image, [len(self)], from the headers alone, read in file order.

        Memory: the result; 16 bytes a record more where keys are shuffled.

        Raises:
            DataError: damaged record, or a label that is no identity (unless ``skip_bad``).
        """
        identities = np.empty(len(self), dtype=np.int64)
        by_place = None if self._index.in_file_order else np.argsort(self.offsets.at(slice(None)), kind="stable")
        for start in range(0, len(self), _CHUNK):
            chunk = slice(start, start + _CHUNK) if by_place is None else by_place[start : start + _CHUNK]
            identities[chunk] = read_identities(self._file, self.offsets.at(chunk))
        for place in np.flatnonzero(identities < 0).tolist():
            # The careful way either decodes it or names what is wrong.
            key = self._index.key(place)
            try:
                _, header = self._content(self.offsets[place], key)
                identities[place] = identity_of(header, f"{self.path}: record {key}")
            except BadRecordError:
                if not self._skip_bad:
                    raise
        return identities

    def label_kind(self, place: int) -> LabelKind:
        """How the identity of an image is written.

        Raises:
            BadRecordError: as ``read``, but for the label.
        """
        offset, size = self._index.extent(place)
        _, header = self._content(offset, self._index.key(place), size)
        if header.flag == 2 and header.mark == SPLIT_BITS:
            return "two-float identity"
        return "vector" if header.flag else "scalar"

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _content(self, offset: int, key: int, guess: int = 4096) -> tuple[bytes, Header]:
        content = self._file.read(offset, key, guess)
        return content, unpack_header(content, f"{self.path}: record {key}")

    def _first_range_key(self) -> int | None:
        """Key of the first identity range record when record 0 is a global header, else None.

        The header says it in float32, exact below 2**24; above, the border is the first record without image
        bytes among the keys that round to the same number.
        """
        index = self._index
        if index.key(0) != 0:
            return None
        header = self._labels_alone(0)
        if header is None or header.flag != 2:
            return None
        first, end = header.labels
        if not (1 <= first <= end and first.is_integer() and end.is_integer()):
            raise bad_label(f"{self.path}: record 0 (global header)", header.labels)
        if first < 1 << 24:
            return int(first)
        spacing = int(np.spacing(np.float32(first)))
        for place in range(index.place_of(int(first) - spacing), index.place_of(int(first) + spacing + 1)):
            if self._labels_alone(place) is not None:
                return index.key(place)
        return int(first) + spacing + 1

    def _check_border(self, stop: int) -> None:
        """Refuse a header that would leave out images."""
        try:
            hides_image = stop < len(self._index) and self._labels_alone(stop) is None
        except BadRecordError:
            if not self._skip_bad:
                raise
            return
        if hides_image:
            key = self._index.key(stop)
            raise DataError(
                f"{self.path}: record 0 (global header) says that no image follows key {key - 1}, but record {key} "
                "holds one: pack the data again"
            )

    def _labels_alone(self, place: int) -> Header | None:
        """The header of a record without image bytes; None for an image, whose bytes stay unread."""
        offset, key = self._index.offsets[place], self._index.key(place)
        length = self._file.first_length(offset, key)
        if length > HEADER.size + 2 * 4:  # two labels, as in InsightFace's header and range records
            return None
        content, header = self._content(offset, key)
        return header if header.size == len(content) else None
