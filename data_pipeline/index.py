"""The index of a ``.rec`` file: from the ``.idx`` beside it, or made again by scanning."""

import logging
from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.index_table import Index, IndexBuilder, RepeatedKeyError
from data_pipeline.index_text import NotAnIndexError, OffsetError, parse_index, write_index
from data_pipeline.record import HEADER
from data_pipeline.recordio import HEAD_BYTES, RecordFile

_log = logging.getLogger(__name__)
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class RebuiltIndex:
    """What ``rebuild_index`` did: records indexed, and the bytes at the end that hold no whole record."""

    path: Path
    records: int
    lost_bytes: int


def open_index(file: RecordFile, skip_bad: bool = False) -> Index:
    """The index of ``file``: read where there is an ``.idx``, else made by one scan and kept in memory only.

    Nothing is written: a file that is still being copied would get an index that misses its end, and the next
    reader would never see the rest. A scan of a file that does not end with a whole record is refused for the
    same reason (``skip_bad``: its whole records will do). Each opening scans again, so a line on the log names the
    command that writes the index once.

    Raises:
        DataError: as ``load_index`` and ``scan_index``; or bytes at the end that are no whole record.
    """
    path = index_path(file.path)
    if path is not None:
        return load_index(file.path, file.size, skip_bad)
    index, end = scan_index(file)
    if end < file.size and not skip_bad:
        raise DataError(
            f"{file.path} has no index {file.path.with_suffix('.idx')}, and byte {end} of {file.size} begins no whole "
            f"record: the file is truncated or damaged: copy it again, or keep the {len(index)} records before with: "
            f"{_rebuild(file.path)}"
        )
    _log.warning(
        "%s has no index: scanned its %d records; to scan once only: %s", file.path, len(index), _rebuild(file.path)
    )
    return index


def index_path(record_path: Path) -> Path | None:
    """The ``.idx`` beside ``record_path`` or, where that is a link, beside the file it leads to; None without one."""
    beside = record_path.with_suffix(".idx")
    if beside.exists() or not record_path.is_symlink():
        return beside if beside.exists() else None
    beside = record_path.resolve().with_suffix(".idx")
    return beside if beside.exists() else None


def load_index(record_path: Path, record_bytes: int, skip_bad: bool = False) -> Index:
    """Read the index of ``record_path``, a file of ``record_bytes`` bytes. The records themselves stay unread.
    ``skip_bad``: records behind the end of the file stay, at its end; reading them fails one by one.

    Raises:
        DataError: no index, not pairs of whole numbers, a key twice, or an offset outside the file.
    """
    path = index_path(record_path) or record_path.with_suffix(".idx")
    rebuild = f"make it again with: {_rebuild(record_path)}"
    try:
        with path.open("rb") as stream:
            return parse_index(stream, record_bytes, skip_bad and record_bytes >= HEAD_BYTES)
    except FileNotFoundError:
        raise DataError(f"{record_path} has no index {path}: {rebuild}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except NotAnIndexError as error:
        raise DataError(f"{path} is not an index of lines 'key<tab>offset' ({error}): {rebuild}") from None
    except OffsetError as error:
        raise DataError(
            f"{record_path}: record {error.key} should start at byte {error.offset} but the file ends at byte "
            f"{record_bytes}; the file is truncated or the index is another file's: copy it again, or {rebuild}"
        ) from None
    except RepeatedKeyError as error:
        raise DataError(f"{path} holds {error}: {rebuild}") from None


def scan_index(file: RecordFile) -> tuple[Index, int]:
    """The index that a scan of ``file`` gives, and the byte behind the last whole record.

    A record's key is the id in its header where these are all different, as InsightFace and ``RecordWriter``
    store them; otherwise its number in the file. What stands behind the last whole record is left out.

    Raises:
        DataError: the file holds no whole record.
    """
    keys, offsets, end = _scan(file)
    builder = IndexBuilder(len(keys), file.size)
    for start in range(0, len(keys), _CHUNK):
        builder.add(keys[start : start + _CHUNK], offsets[start : start + _CHUNK])
    return builder.finish(), end


def rebuild_index(record_path: Path) -> RebuiltIndex:
    """Scan a ``.rec`` file and write its ``.idx``, in place of one that is there, with ``scan_index``'s keys.

    The lines are in file order, as MXNet writes them.

    Raises:
        DataError: the file holds no whole record.
    """
    file = RecordFile(record_path)
    try:
        keys, offsets, end = _scan(file)
    finally:
        file.close()
    path = record_path.with_suffix(".idx")
    write_index(path, keys, offsets)
    return RebuiltIndex(path, len(keys), max(file.size - end, 0))


def _scan(file: RecordFile) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Keys and offsets [records] in file order, and the byte behind the last of them."""
    ids, offsets = array("Q"), array("q")
    end = 0
    for offset, stop, start in file.scan():
        if len(start) < HEADER.size:
            break
        ids.append(HEADER.unpack(start)[2])
        offsets.append(offset)
        end = stop
    if not offsets:
        raise DataError(f"{file.path} holds no whole RecordIO record at its beginning: it is no record file")
    keys = np.frombuffer(ids, dtype=np.int64)
    ordered = keys if np.all(keys[1:] > keys[:-1]) else np.sort(keys)
    if keys.min() < 0 or np.any(ordered[1:] == ordered[:-1]):  # below 0 are the ids from 2**63 on
        keys = np.arange(len(offsets), dtype=np.int64)
    return keys, np.frombuffer(offsets, dtype=np.int64), end


def _rebuild(record_path: Path) -> str:
    return f"pfc data inspect {record_path} --rebuild-index"
