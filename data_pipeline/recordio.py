"""RecordIO framing, byte for byte as MXNet (dmlc-core) writes it.

A record is one or more parts, each ``magic (uint32) | flag << 29 | length (uint32) | bytes | padding to 4``.
The magic number never occurs at an aligned place inside a part: where the content holds it, the content is
cut there, the four magic bytes are left out and the reader puts them back. The flag tells the parts apart:
0 a whole record, 1 the first part, 2 a middle part, 3 the last part. All numbers are little-endian.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.errors import DataError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
WHOLE, FIRST, MIDDLE, LAST = range(4)
LENGTH_BITS = 29
MAX_PART = (1 << LENGTH_BITS) - 1  # bytes
HEAD_BYTES = 8

_HEAD = struct.Struct("<II")
MAX_FIRST_READ = 1 << 16  # bytes read before a record's own length is known


def _padded(length: int) -> int:
    return (length + 3) & ~3


def _part(flag: int, content: bytes) -> bytes:
    head = _HEAD.pack(MAGIC, flag << LENGTH_BITS | len(content))
    return head + content + bytes(_padded(len(content)) - len(content))


def frame(content: bytes) -> bytes:
    """Content of any kind -> the bytes of one record, split where it holds the aligned magic number.

    Raises:
        DataError: the content is longer than the 29-bit length can say.
    """
    if len(content) > MAX_PART:
        raise DataError(f"a record of {len(content)} bytes is too long: RecordIO holds at most {MAX_PART}")
    cuts = []
    found = content.find(MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            cuts.append(found)
        # Both places count from the record's start, so the next candidate may begin at the next byte.
        found = content.find(MAGIC_BYTES, found + (4 if found % 4 == 0 else 1))
    if not cuts:
        return _part(WHOLE, content)
    parts, start = [], 0
    for cut in cuts:
        parts.append(_part(FIRST if start == 0 else MIDDLE, content[start:cut]))
        start = cut + len(MAGIC_BYTES)
    parts.append(_part(LAST, content[start:]))
    return b"".join(parts)


class RecordFile:
    """One open ``.rec`` file, read record by record at given offsets (``pread``: no shared position).

    ``size`` is the file's length in bytes when it was opened. Every length is checked against it before
    anything is read. A pickled copy opens the file again; forked processes may share one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"cannot open {path}: {error.strerror}; give the path of a .rec file") from error
        self.size = os.fstat(self._descriptor).st_size

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            self.close()

    def __reduce__(self) -> tuple[type["RecordFile"], tuple[Path]]:
        return RecordFile, (self.path,)

    def peek(self, offset: int, count: int) -> bytes:
        """``count`` raw bytes from ``offset``, fewer where the file ends; nothing is checked."""
        return os.pread(self._descriptor, count, offset)

    def end(self, offset: int, key: int | str) -> int:
        """Byte offset behind the record at ``offset``, with its padding; reads the parts' heads only.

        Raises:
            DataError: as ``read``.
        """
        position, first = offset, True
        while True:
            flag, length = self._head(os.pread(self._descriptor, HEAD_BYTES, position), position, key, first)
            position += HEAD_BYTES + _padded(length)
            first = False
            if flag in (WHOLE, LAST):
                return position

    def scan(self) -> Iterator[tuple[int, int, bytes]]:
        """Every whole record in file order: (offset, offset behind it, first 24 bytes of its content).

        Stops at the end of the file and where no whole record follows.
        """
        offset = 0
        while offset < self.size:
            try:
                stop = self.end(offset, "")
                start = os.pread(self._descriptor, min(24 + HEAD_BYTES, self.size - offset), offset)
                # A cut inside the header is rare enough to be read whole.
                flag, length = self._head(start, offset, "", first=True)
                start = self.read(offset, "")[:24] if flag == FIRST and length < 24 else start[HEAD_BYTES:][:length]
            except DataError:
                return
            yield offset, stop, start
            offset = stop

    def read(self, offset: int, key: int | str, guess: int = 4096) -> bytes:
        """The content of the record at byte ``offset``; ``key`` names it in messages.

        ``guess``, its likely size in bytes, makes it one read; a longer record costs a second one.

        Raises:
            DataError: the file ends too early, or no well-formed record starts there.
        """
        buffer = os.pread(self._descriptor, min(guess, MAX_FIRST_READ, max(self.size - offset, 0)), offset)
        flag, length = self._head(buffer, offset, key, first=True)
        parts = [self._body(buffer, offset, length)]
        while flag not in (WHOLE, LAST):
            offset += HEAD_BYTES + _padded(length)
            buffer = os.pread(self._descriptor, HEAD_BYTES, offset)
            flag, length = self._head(buffer, offset, key, first=False)
            parts += [MAGIC_BYTES, self._body(buffer, offset, length)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _body(self, buffer: bytes, offset: int, length: int) -> bytes:
        if HEAD_BYTES + length <= len(buffer):
            return buffer[HEAD_BYTES : HEAD_BYTES + length]
        return os.pread(self._descriptor, length, offset + HEAD_BYTES)

    def _head(self, buffer: bytes, offset: int, key: int | str, first: bool) -> tuple[int, int]:
        """Flag and length of the part at ``offset``, checked against the file."""
        if len(buffer) < HEAD_BYTES:
            raise self._truncated(offset, key, HEAD_BYTES)
        magic, word = _HEAD.unpack_from(buffer)
        flag, length = word >> LENGTH_BITS, word & MAX_PART
        if magic != MAGIC or flag not in ((WHOLE, FIRST) if first else (MIDDLE, LAST)):
            raise DataError(
                f"{self.path}: record {key}: no RecordIO record starts at byte {offset}; "
                f"the index is of another file or the data is damaged: pfc data inspect {self.path} --rebuild-index"
            )
        if offset + HEAD_BYTES + length > self.size:
            raise self._truncated(offset, key, HEAD_BYTES + length)
        return flag, length

    def _truncated(self, offset: int, key: int | str, needed: int) -> DataError:
        return DataError(
            f"{self.path}: record {key} needs {needed} bytes at byte {offset} but the file ends at byte {self.size}; "
            "the file is truncated: copy it again, or keep its whole records with "
            f"pfc data inspect {self.path} --rebuild-index"
        )
