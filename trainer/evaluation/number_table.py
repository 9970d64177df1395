"""Text files of numbers in columns: millions of lines, checked line by line, a clear message for the first bad one."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError

_LINES = 1 << 16


def read_numbers(path: Path, *, columns: int) -> NDArray[np.int64]:
    """[lines, columns] whole numbers separated by blanks. Raises DataError, with the line, for anything else."""
    text = read_text(path)
    try:
        # Of a sound file, many times faster than line by line.
        table = np.loadtxt(io.StringIO(text), dtype=np.int64, ndmin=2, comments=None)
        if table.shape[1] == columns:
            return table
    except (ValueError, OverflowError, UserWarning):
        pass
    return _line_by_line(path, text, words=0, numbers=columns, whole=True)[1].astype(np.int64)


def read_words(path: Path, *, numbers: int, whole: bool = True) -> tuple[list[str], NDArray[np.float64]]:
    """Lines of a name and ``numbers`` numbers: names (n) and [n, numbers]. Raises DataError, with the line."""
    return _line_by_line(path, read_text(path), words=1, numbers=numbers, whole=whole)


def read_csv_columns(path: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """[rows, len(names)] whole numbers of the columns with these headings. Raises DataError, with the row."""
    rows = csv.reader(io.StringIO(read_text(path)))
    heading = [cell.strip().upper() for cell in next(rows, [])]
    missing = [name for name in names if name not in heading]
    if missing:
        raise DataError(
            f"{path}: the first line has no column {missing[0]}; it has {', '.join(heading)[:80] or 'none'}"
        )
    places = [heading.index(name) for name in names]
    found = []
    for number, row in enumerate(rows, start=1):
        if not row:
            continue
        try:
            found.append([int(row[place]) for place in places])
        except (ValueError, IndexError):
            raise DataError(f"{path}: row {number} has no whole numbers as {' and '.join(names)}: {row[:4]}") from None
    if not found:
        raise DataError(f"{path}: lists nothing")
    return _int64(path, found)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises DataError where there is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _line_by_line(
    path: Path, text: str, *, words: int, numbers: int, whole: bool
) -> tuple[list[str], NDArray[np.float64]]:
    names: list[str] = []
    values: list[list[float]] = []
    parts: list[NDArray[np.float64]] = []  # lists of Python numbers would take ten times the memory
    kind = "whole numbers" if whole else "numbers"
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        wanted = f"{path}: line {number} is not {'a name and ' if words else ''}{numbers} {kind}: {line[:80]!r}"
        if len(fields) != words + numbers:
            raise DataError(wanted)
        try:
            found: list[float] = [int(field) if whole else float(field) for field in fields[words:]]
        except ValueError:
            raise DataError(wanted) from None
        if not np.isfinite(found).all() or max(map(abs, found)) >= 2**53:
            raise DataError(f"{path}: line {number} has a number out of range: {line[:80]!r}")
        names += fields[:words]
        values.append(found)
        if len(values) == _LINES:
            parts.append(np.array(values, dtype=np.float64))
            values.clear()
    if values:
        parts.append(np.array(values, dtype=np.float64))
    if not parts:
        raise DataError(f"{path}: lists nothing")
    return names, np.concatenate(parts)


def _int64(path: Path, rows: list[list[int]]) -> NDArray[np.int64]:
    try:
        return np.array(rows, dtype=np.int64)
    except OverflowError:
        raise DataError(f"{path}: a number is out of range") from None
