"""The text of an ``.idx`` file, a line ``key<tab>offset`` for each record: read in bounded memory, and written."""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from data_pipeline.index_table import Index, IndexBuilder
from data_pipeline.pending_file import PendingFile

_CHUNK = 1 << 20  # bytes of text parsed together: temporaries stay in the processor's cache
_LINES = 1 << 16  # written together
_LARGEST = np.iinfo(np.int64).max  # where NumPy's parser leaves larger numbers, without a word
_LINE = re.compile(rb"\s*(-?\d{1,18})\s+(-?\d{1,18})\s*")


class NotAnIndexError(ValueError):
    """A line is not two whole numbers; the message says which."""


class OffsetError(ValueError):
    """A record's offset is not a place in the file where a record can begin."""

    def __init__(self, key: int, offset: int) -> None:
        super().__init__(f"record {key} cannot start at byte {offset}")
        self.key, self.offset = key, offset


def parse_index(stream: BinaryIO, record_bytes: int, skip_bad: bool = False) -> Index:
    """The index of a record file of ``record_bytes`` bytes, from its text. Blank lines and CRLF are allowed.

    skip_bad: a record behind the end of the file counts as lying at the end, where reading it fails.

    10 million records in order take about 1 s and 100 MiB, shuffled 1.5 s and 150 MiB, shuffled with gaps (a part of
    an im2rec list) 2 to 2.5 s and 220 MiB.

    Raises:
        NotAnIndexError: a line is not two whole numbers.
        OffsetError: an offset outside the file or between two words of it.
        RepeatedKeyError: a key comes twice.
    """
    chunk = min(_CHUNK, stream.seek(0, os.SEEK_END) + 1)  # a small file takes no large buffer
    stream.seek(0)
    lines = sum(block.count(b"\n") for block in iter(lambda: stream.read(chunk), b"")) + 1
    stream.seek(0)
    end = -(-record_bytes // 4) * 4
    builder = IndexBuilder(lines, end + 4 if skip_bad else record_bytes)
    before = 0  # lines
    for text in _whole_lines(stream, chunk):
        pairs = _pairs(text, before)
        before += text.count(b"\n")
        keys, offsets = pairs[0::2], pairs[1::2]
        wrong = (offsets < 0) | (offsets & 3 != 0) | ((offsets >= record_bytes) & (not skip_bad))
        if wrong.any():
            place = int(wrong.argmax())
            raise OffsetError(int(keys[place]), int(offsets[place]))
        builder.add(keys, np.minimum(offsets, end) if skip_bad else offsets)
    return builder.finish()


def write_index(path: Path, keys: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
    """Write the lines of ``keys`` and ``offsets`` [records], in their order, to ``path``: all of it or nothing."""
    with PendingFile(path) as pending:
        for start in range(0, len(keys), _LINES):
            chunk = slice(start, start + _LINES)
            lines = (
                f"{key}\t{offset}\n" for key, offset in zip(keys[chunk].tolist(), offsets[chunk].tolist(), strict=True)
            )
            pending.stream.write("".join(lines).encode())


def _whole_lines(stream: BinaryIO, chunk: int) -> Iterator[bytes]:
    rest = b""
    while block := stream.read(chunk):
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
        elif len(rest) > _CHUNK:
            raise NotAnIndexError("a line of more than a million bytes")
        else:
            rest += block
    if rest:
        yield rest


def _pairs(text: bytes, lines_before: int) -> NDArray[np.int64]:
    """Key and offset in turn, int64 [2 n], of n lines."""
    if not text.strip():
        return np.empty(0, dtype=np.int64)  # NumPy would find a 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how older NumPy reports text that is no number
        try:
            numbers = np.fromstring(text, dtype=np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            return _careful_pairs(text, lines_before)
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if len(numbers) != 2 * lines or numbers.max() == _LARGEST:
        return _careful_pairs(text, lines_before)
    return numbers


def _careful_pairs(text: bytes, lines_before: int) -> NDArray[np.int64]:
    """Line by line: blank lines are left out, a wrong one is named."""
    numbers: list[int] = []
    for number, line in enumerate(text.split(b"\n"), start=lines_before + 1):
        if matched := _LINE.fullmatch(line):
            numbers += map(int, matched.groups())
        elif line.strip():
            raise NotAnIndexError(f"line {number} is {line[:40].decode('ascii', 'backslashreplace')!r}")
    return np.array(numbers, dtype=np.int64)
