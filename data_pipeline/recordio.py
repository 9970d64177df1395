"""RecordIO framing, byte for byte as MXNet (dmlc-core) writes it.

A record is one or more parts, each ``magic (uint32) | flag << 29 | length (uint32) | bytes | padding to 4``.
The magic number never occurs at an aligned place inside a part: where the content holds it, the content is
cut there, the four magic bytes are left out and the reader puts them back. The flag tells the parts apart:
0 a whole record, 1 the first part, 2 a middle part, 3 the last part. All numbers are little-endian.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from data_pipeline.errors import BadRecordError, DataError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
WHOLE, FIRST, MIDDLE, LAST = range(4)
LENGTH_BITS = 29
MAX_PART = (1 << LENGTH_BITS) - 1  # bytes
HEAD_BYTES = 8

_HEAD = struct.Struct("<II")
_ADVISED = 1 << 17  # bytes
MAX_FIRST_READ = 1 << 16  # bytes read before a record's own length is known
_SCAN_READ = 1 << 18  # bytes
_START = HEAD_BYTES + 24  # bytes of a record that a scan looks at


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
    """One open ``.rec`` file, read record by record at given offsets.

    Files of any size are read from the kernel's page cache, never as a whole, by ``pread``, not by a memory map.
    Measured with the 5 KB records of 9,000 faces: cached, a map saves 0.7 us of the 300 us that decoding an image
    takes (0.95 against 1.7 us). From the disk it takes 78 us against 28, and it waits with the interpreter's lock
    held: another thread ran 210 times a second instead of 3,400. And a map of a file that is cut short meanwhile
    kills the process (SIGBUS), where ``pread`` makes it an error that names the record.

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

    @property
    def descriptor(self) -> int:
        """Of the open file; -1 when it is closed."""
        return self._descriptor

    def peek(self, offset: int, count: int, key: int | str = "") -> bytes:
        """``count`` raw bytes from ``offset``, fewer where the file ends; nothing is checked.

        Raises:
            BadRecordError: the operating system cannot read them; ``key`` names the record.
        """
        try:
            return os.pread(self._descriptor, count, offset)
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "no such place"
            raise self._unreadable(offset, count, key, why) from error

    def will_need(self, start: int, stop: int) -> None:
        """Have bytes [start, stop) read into the page cache, in the background, where the system can."""
        if hasattr(os, "posix_fadvise"):
            # Linux reads no more than the device's read-ahead (128 KiB by default) for one such call.
            with suppress(OSError):  # a hint only: what cannot be read is told when it is read
                for offset in range(start, stop, _ADVISED):
                    os.posix_fadvise(self._descriptor, offset, min(_ADVISED, stop - offset), os.POSIX_FADV_WILLNEED)

    def peek_into(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` with raw bytes from ``offset``; the number of them, less where the file ends."""
        try:
            return os.preadv(self._descriptor, [buffer], offset)
        except OSError as error:
            raise self._unreadable(offset, len(buffer), "", error.strerror) from error

    def first_length(self, offset: int, key: int | str) -> int:
        """Bytes of content in the first part of the record at ``offset``.

        Raises:
            DataError: as ``read``.
        """
        return self._head(self.peek(offset, HEAD_BYTES, key), offset, key, first=True)[1]

    def end(self, offset: int, key: int | str) -> int:
        """Byte offset behind the record at ``offset``, with its padding; reads the parts' heads only.

        Raises:
            BadRecordError: as ``read``.
        """
        position, first = offset, True
        while True:
            flag, length = self._head(self.peek(position, HEAD_BYTES, key), position, key, first)
            position += HEAD_BYTES + _padded(length)
            first = False
            if flag in (WHOLE, LAST):
                return position

    def scan(self) -> Iterator[tuple[int, int, bytes]]:
        """Every whole record in file order: (offset, offset behind it, first 24 bytes of its content).

        Stops at the end of the file and where no whole record follows. Small records are read some hundreds of
        KiB at a time; the content of large ones is skipped.
        """
        offset = base = 0
        buffer = b""
        while offset < self.size:
            at = offset - base
            if at + _START > len(buffer):
                base, at, buffer = offset, 0, os.pread(self._descriptor, _SCAN_READ, offset)
            if len(buffer) >= at + HEAD_BYTES:
                magic, word = _HEAD.unpack_from(buffer, at)
                # Nearly every record: one part. Whatever else goes the careful way below.
                if magic == MAGIC and word <= MAX_PART and offset + HEAD_BYTES + word <= self.size:
                    stop = offset + HEAD_BYTES + _padded(word)
                    yield offset, stop, buffer[at + HEAD_BYTES : at + HEAD_BYTES + min(word, 24)]
                    offset = stop
                    continue
            try:
                stop = self.end(offset, "")
                start = self.read(offset, "")[:24]
            except DataError:
                return
            yield offset, stop, start
            offset = stop

    def read(self, offset: int, key: int | str, guess: int = 4096) -> bytes:
        """The content of the record at byte ``offset``; ``key`` names it in messages.

        ``guess``, its likely size in bytes, makes it one read; a longer record costs a second one.

        Raises:
            BadRecordError: the file ends too early, no well-formed record starts there, or it cannot be read.
        """
        buffer = self.peek(offset, min(guess, MAX_FIRST_READ, max(self.size - offset, 0)), key)
        flag, length = self._head(buffer, offset, key, first=True)
        parts = [self._body(buffer, offset, length, key)]
        while flag not in (WHOLE, LAST):
            offset += HEAD_BYTES + _padded(length)
            buffer = self.peek(offset, HEAD_BYTES, key)
            flag, length = self._head(buffer, offset, key, first=False)
            parts += [MAGIC_BYTES, self._body(buffer, offset, length, key)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _body(self, buffer: bytes, offset: int, length: int, key: int | str) -> bytes:
        if HEAD_BYTES + length <= len(buffer):
            return buffer[HEAD_BYTES : HEAD_BYTES + length]
        body = self.peek(offset + HEAD_BYTES, length, key)
        if len(body) < length:  # cut short since it was opened
            self.size = min(self.size, os.fstat(self._descriptor).st_size)
            raise self._truncated(offset, key, HEAD_BYTES + length)
        return body

    def _head(self, buffer: bytes, offset: int, key: int | str, first: bool) -> tuple[int, int]:
        """Flag and length of the part at ``offset``, checked against the file."""
        if len(buffer) < HEAD_BYTES:
            raise self._truncated(offset, key, HEAD_BYTES)
        magic, word = _HEAD.unpack_from(buffer)
        flag, length = word >> LENGTH_BITS, word & MAX_PART
        if magic != MAGIC or flag not in ((WHOLE, FIRST) if first else (MIDDLE, LAST)):
            raise BadRecordError(
                "bad_record",
                f"{self.path}: record {key}: no RecordIO record starts at byte {offset}; "
                f"the index is of another file or the data is damaged: pfc data inspect {self.path} --rebuild-index",
            )
        if offset + HEAD_BYTES + length > self.size:
            raise self._truncated(offset, key, HEAD_BYTES + length)
        return flag, length

    def _unreadable(self, offset: int, count: int, key: int | str, why: str | None) -> BadRecordError:
        return BadRecordError(
            "io_error",
            f"{self.path}: record {key}: {count} bytes at byte {offset} cannot be read: {why}; "
            f"check the disk or the mount, then find every such record with pfc data verify {self.path}",
        )

    def _truncated(self, offset: int, key: int | str, needed: int) -> BadRecordError:
        size = min(self.size, os.fstat(self._descriptor).st_size)  # it may have been cut since it was opened
        return BadRecordError(
            "truncated",
            f"{self.path}: record {key} needs {needed} bytes at byte {offset} but the file ends at byte {size}; "
            "the file is truncated: copy it again, or keep its whole records with "
            f"pfc data inspect {self.path} --rebuild-index",
        )
