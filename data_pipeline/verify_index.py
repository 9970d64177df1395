"""The index of a record file as it stands, faults and all, in the order of the file."""

import re
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.verify_report import LISTED

_LINE = re.compile(rb"\s*-?[0-9]{1,18}[ \t]+-?[0-9]{1,18}[ \t\r]*")
_NO_NUMBERS = np.empty(0, dtype=np.int64)


@dataclass(slots=True)
class FoundIndex:
    """keys, offsets: int64 [lines], ascending by offset.

    findings: (key, offset, reason, message), the first of each kind; unlisted: how many more there are, by reason.
    """

    keys: NDArray[np.int64] = field(default_factory=lambda: _NO_NUMBERS)
    offsets: NDArray[np.int64] = field(default_factory=lambda: _NO_NUMBERS)
    findings: list[tuple[int | None, int | None, str, str]] = field(default_factory=list)
    unlisted: Counter[str] = field(default_factory=Counter)

    def between(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys and offsets of the records that should start in [start, stop)."""
        piece = slice(*np.searchsorted(self.offsets, [start, stop]))
        return self.keys[piece], self.offsets[piece]


def find_index(record_path: Path, record_bytes: int) -> FoundIndex | None:
    """The index beside ``record_path``, a file of ``record_bytes`` bytes; None where there is none.

    What is wrong with it alone becomes findings: lines that are no numbers, keys or offsets that come twice, offsets
    outside the file.
    """
    path = record_path.with_suffix(".idx")
    found = FoundIndex()
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        found.findings.append((None, None, "unreadable_index", f"{path} cannot be read: {error.strerror}"))
        return found
    pairs = _all_pairs(text)
    if pairs is None:
        pairs = _sound_pairs(text, path, found)
    pairs = pairs[np.argsort(pairs[:, 1], kind="stable")]
    keys, offsets = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    found.keys, found.offsets = keys, offsets
    outside = np.flatnonzero((offsets < 0) | (offsets % 4 != 0) | (offsets >= record_bytes))
    message = f"the file has {record_bytes} bytes and its records start at multiples of 4"
    _find(found, outside, "no_record", message)
    _find(found, 1 + np.flatnonzero(np.diff(offsets) == 0), "duplicate_offset", "another key names the same record")
    by_key = np.argsort(keys, kind="stable")
    again = by_key[1 + np.flatnonzero(np.diff(keys[by_key]) == 0)]
    _find(found, again, "duplicate_key", "the key is given to another record, too")
    return found


def _all_pairs(text: bytes) -> NDArray[np.int64] | None:
    """The numbers of an index in which everything is a number: [lines, 2]; None for any other."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how NumPy reports text that is no number
            numbers = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None
    return None if len(numbers) % 2 else numbers.reshape(-1, 2)


def _sound_pairs(text: bytes, path: Path, found: FoundIndex) -> NDArray[np.int64]:
    """The lines of a damaged index that are sound, [lines, 2]; the others become one finding."""
    lines = text.splitlines()
    sound = [line for line in lines if _LINE.fullmatch(line)]
    odd = sum(1 for line in lines if line.strip()) - len(sound)
    message = f"{odd} of {len(lines)} lines of {path} are not 'key<tab>offset'"
    found.findings.append((None, None, "unreadable_index", message))
    return np.array(b" ".join(sound).split(), dtype=np.int64).reshape(-1, 2)


def _find(found: FoundIndex, places: NDArray[np.int64], reason: str, message: str) -> None:
    for place in places[:LISTED].tolist():
        found.findings.append((int(found.keys[place]), int(found.offsets[place]), reason, message))
    if len(places) > LISTED:
        found.unlisted[reason] += len(places) - LISTED
