"""Verifies one stretch of a record file, found by the framing alone.

RecordIO never holds its magic number at an aligned place inside a record. So a worker may begin anywhere, at the next
magic number; and behind a damaged record the next one is found, whatever the damaged one says of its length.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_pipeline.errors import BadRecordError
from data_pipeline.image_fault import ImageCheck
from data_pipeline.image_header import announced_size, image_format
from data_pipeline.record import MAX_SCALAR, Header, identity_of, unpack_header
from data_pipeline.recordio import FIRST, LENGTH_BITS, MAGIC, WHOLE, RecordFile
from data_pipeline.strict_image import strict_fault

_SMALLEST_READ = 1 << 16  # bytes: how finely a stretch that the disk does not give is told apart
_LONGEST = 1 << 29  # bytes of a record with its parts, what one part may have
_LISTED = 2_000  # findings that a chunk lists; the others are counted


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of ``path`` whose first byte is in [start, stop); see ``verify`` for the rest."""

    path: Path
    start: int
    stop: int
    insightface: bool
    image_size: int | None
    num_identities: int | None


@dataclass(slots=True)
class ChunkResult:
    """What a chunk holds. ``begin``: where its first record starts, None where no record starts in it.

    end: behind the last record, None where that one is damaged, so that nobody knows.
    images: (offset, key in the header, identity) of every record that holds an image, -1 where it is no identity.
    headers: (offset, key in the header, first label, second label) of records without image in InsightFace's layout.
    findings: (offset, reason, message); unlisted: those beyond the first ones, by reason.
    """

    begin: int | None = None
    end: int | None = None
    images: list[tuple[int, int, int]] = field(default_factory=list)
    headers: list[tuple[int, int, float, float]] = field(default_factory=list)
    findings: list[tuple[int, str, str]] = field(default_factory=list)
    unlisted: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)

    def find(self, offset: int, reason: str, message: str) -> None:
        """Take a finding."""
        if len(self.findings) < _LISTED:
            self.findings.append((offset, reason, message))
        else:
            self.unlisted[reason] += 1


def verify_chunk(chunk: Chunk) -> ChunkResult:
    """Check framing, labels and images of a chunk. A disk that fails is a finding, not an error."""
    file = RecordFile(chunk.path)
    result = ChunkResult()
    try:
        check = ImageCheck(chunk.image_size)
        heads = _heads(file, chunk, result)
        result.begin = heads[0] if heads else None
        for start, content in _records(file, chunk, heads, result):
            _check_record(start, content, chunk, check, result)
    finally:
        file.close()
    return result


def _heads(file: RecordFile, chunk: Chunk, result: ChunkResult) -> list[int]:
    """Offsets of all places in the chunk that look like the beginning of a record."""
    raw = _readable(file, chunk.start, min(chunk.stop + 4, file.size), result)
    words = np.frombuffer(raw, dtype="<u4", count=len(raw) // 4)
    at = np.flatnonzero(words[:-1] == MAGIC)
    flags = words[at + 1] >> LENGTH_BITS
    return (chunk.start + 4 * at[(flags == WHOLE) | (flags == FIRST)]).tolist()  # type: ignore[no-any-return]


def _readable(file: RecordFile, start: int, stop: int, result: ChunkResult) -> bytes:
    """The bytes [start, stop), zeros where the disk does not give them."""
    try:
        return file.peek(start, stop - start)
    except BadRecordError as error:
        if stop - start <= _SMALLEST_READ:
            result.find(start, error.reason, str(error))
            return bytes(stop - start)
    middle = start + (stop - start) // 8 * 4
    return _readable(file, start, middle, result) + _readable(file, middle, stop, result)


def _records(file: RecordFile, chunk: Chunk, heads: list[int], result: ChunkResult) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each well-formed record of the chunk, in order; the others become findings."""
    number = 0
    while number < len(heads):
        start = heads[number]
        number += 1
        following = heads[number] if number < len(heads) else None
        result.end = None
        try:
            end = file.end(start, "")
            if end - start > _LONGEST:
                raise BadRecordError("bad_record", f"{end - start} bytes are too many for a record")
            runs_over = following if following and following < end else _record_between(file, chunk.stop, end)
            if runs_over is not None:
                raise BadRecordError("bad_record", f"its length, up to byte {end}, runs over the record at {runs_over}")
            content = file.read(start, "")
        except BadRecordError as error:
            result.find(start, error.reason, str(error).removeprefix(f"{chunk.path}: record ").lstrip(" :"))
            continue
        yield start, content
        result.end = end
        if following is not None and end < following:
            result.find(end, "bad_record", f"{following - end} bytes hold no record")


def _record_between(file: RecordFile, start: int, end: int) -> int | None:
    """Where a record begins in [start, end), which the chunk's last record takes for its own."""
    if end <= start:
        return None
    raw = file.peek(start, end - start)
    words = np.frombuffer(raw, dtype="<u4", count=len(raw) // 4)
    at = np.flatnonzero(words[:-1] == MAGIC)
    at = at[(words[at + 1] >> LENGTH_BITS == WHOLE) | (words[at + 1] >> LENGTH_BITS == FIRST)]
    return start + 4 * int(at[0]) if len(at) else None


def _check_record(start: int, content: bytes, chunk: Chunk, check: ImageCheck, result: ChunkResult) -> None:
    try:
        header = unpack_header(content, "record")
    except BadRecordError as error:
        result.find(start, error.reason, str(error))
        return
    image = content[header.size :]
    if not image and chunk.insightface and header.flag == 2:
        result.headers.append((start, header.key, header.labels[0], header.labels[1]))
        return
    identity = _identity(start, header, chunk, result)
    result.images.append((start, header.key, identity))
    if not image:
        result.find(start, "empty", "the record holds no image bytes")
    elif fault := strict_fault(image, check):
        result.find(start, fault.reason, fault.detail)
    elif size := announced_size(image):
        result.sizes[size] += 1
        result.formats[image_format(image) or ""] += 1


def _identity(start: int, header: Header, chunk: Chunk, result: ChunkResult) -> int:
    try:
        identity = identity_of(header, "record")
    except BadRecordError as error:
        result.find(start, error.reason, str(error))
        return -1
    if chunk.num_identities is not None and identity >= chunk.num_identities:
        result.find(start, "bad_record", f"identity {identity} is not below the {chunk.num_identities} of 'property'")
    elif header.flag == 0 and identity == MAX_SCALAR:
        result.find(start, "bad_record", f"identity {identity} in a float32 label stands for {identity + 1} as well")
    return identity
