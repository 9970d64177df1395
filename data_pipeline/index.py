"""The ``.idx`` file beside a ``.rec``: lines ``key<tab>offset``, and how to make one again by scanning."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.pending_file import write_file
from data_pipeline.record import HEADER
from data_pipeline.recordio import RecordFile


@dataclass(frozen=True, slots=True)
class Index:
    """Where the records of one file begin, in ascending order of their keys.

    keys, offsets: int64 [records].
    """

    keys: NDArray[np.int64]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RebuiltIndex:
    """What ``rebuild_index`` did: records indexed, and the bytes at the end that hold no whole record."""

    path: Path
    records: int
    lost_bytes: int


def load_index(record_path: Path, record_bytes: int) -> Index:
    """Read the index of ``record_path``, a file of ``record_bytes`` bytes. The records themselves stay unread.

    Raises:
        DataError: no index, not pairs of whole numbers, a key twice, or an offset outside the file.
    """
    path = record_path.with_suffix(".idx")
    rebuild = f"make it again with: pfc data inspect {record_path} --rebuild-index"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{record_path} has no index {path}: {rebuild}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how NumPy reports text that is no number
            numbers = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        numbers = np.empty(1, dtype=np.int64)
    if len(numbers) % 2:
        raise DataError(f"{path} is not an index of lines 'key<tab>offset': {rebuild}")
    keys, offsets = numbers[0::2], numbers[1::2]
    wrong = np.flatnonzero((offsets < 0) | (offsets % 4 != 0) | (offsets >= record_bytes))
    if len(wrong):
        raise DataError(
            f"{record_path}: record {keys[wrong[0]]} should start at byte {offsets[wrong[0]]} but the file ends at "
            f"byte {record_bytes}; the file is truncated or the index is another file's: copy it again, or {rebuild}"
        )
    order = np.argsort(keys, kind="stable")
    keys, offsets = keys[order], offsets[order]
    repeated = np.flatnonzero(keys[1:] == keys[:-1])
    if len(repeated):
        raise DataError(f"{path} holds key {keys[repeated[0]]} twice: {rebuild}")
    return Index(keys, offsets)


def rebuild_index(record_path: Path) -> RebuiltIndex:
    """Scan a ``.rec`` file and write its ``.idx``, in place of one that is there.

    A record's key is the id in its header where these are all different, as InsightFace and ``RecordWriter``
    store them; otherwise its number in the file. What stands behind the last whole record is left out.

    Raises:
        DataError: the file holds no whole record.
    """
    file = RecordFile(record_path)
    keys: list[int] = []
    offsets: list[int] = []
    end = 0
    try:
        for offset, stop, start in file.scan():
            if len(start) < HEADER.size:
                break
            keys.append(HEADER.unpack(start)[2])
            offsets.append(offset)
            end = stop
    finally:
        file.close()
    if not offsets:
        raise DataError(f"{record_path} holds no whole RecordIO record at its beginning: it is no record file")
    if len(set(keys)) < len(keys) or max(keys) >= 1 << 63:
        keys = list(range(len(offsets)))
    index_path = record_path.with_suffix(".idx")
    write_file(index_path, "".join(f"{key}\t{offset}\n" for key, offset in zip(keys, offsets, strict=True)))
    return RebuiltIndex(index_path, len(offsets), file.size - end)
