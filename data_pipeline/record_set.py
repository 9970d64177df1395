"""The record shards of one data set: what they are named, and finding all of them in a folder.

A data set of one file is ``train.rec``. One of several is ``train-00000-of-00008.rec`` and so on, each with its
``.idx``: a name says how many there must be, so a folder where some are missing never passes for a data set.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.errors import DataError

RecordPath = str | os.PathLike[str]

UNFINISHED = ".unfinished"  # folder in which a data set is made before it gets its names
DALI_INDEX = "dali.idx"  # of all shards together
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5,})-of-(?P<count>\d{5,})\.rec")


def shard_name(number: int, count: int) -> str:
    """File name of record shard ``number`` of ``count``."""
    return "train.rec" if count == 1 else f"train-{number:05}-of-{count:05}.rec"


def is_own_name(name: str) -> bool:
    """Whether a file is called as ``shard_name`` or the index of such a file is."""
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix not in ("rec", "idx"):
        return False
    shard = _SHARD.fullmatch(f"{stem}.rec")
    return stem == "train" or (shard is not None and shard["stem"] == "train")


def records_in(folder: Path) -> list[Path]:
    """The ``.rec`` files in ``folder``, sorted by name; none where there are none.

    Raises:
        DataError: shards are missing, or there are two data sets.
    """
    found = sorted(path for path in folder.glob("*.rec") if not path.name.startswith("."))
    sets: dict[tuple[str, int], list[Path]] = {}
    for path in found:
        if shard := _SHARD.fullmatch(path.name):
            sets.setdefault((shard["stem"], int(shard["count"])), []).append(path)
    for (stem, count), paths in sets.items():
        expected = {f"{stem}-{number:05}-of-{count:05}.rec" for number in range(min(count, len(paths) + 1))}
        missing = sorted(expected - {path.name for path in paths})
        if missing or len(paths) > count:
            raise DataError(
                f"{folder} holds {len(paths)} of {count} record shards ({missing[0] if missing else paths[-1].name} is "
                f"{'missing' if missing else 'too many'}): the command that wrote them was interrupted or a copy is "
                "incomplete; run that command again, or name the files one by one"
            )
        if len(found) > count:
            other = next(path for path in found if path not in paths)
            raise DataError(
                f"{folder} holds {other.name} beside the shards of another data set ({paths[0].name}): "
                "keep one data set in a folder, or name the files one by one"
            )
    return found


def training_records(folder: Path) -> list[Path]:
    """The files that ``folder`` stands for: its ``train.rec``, as InsightFace lays data sets out, or all its shards.

    Raises:
        DataError: there is none, or as ``records_in``.
    """
    found = records_in(folder)
    if not found:
        unfinished = f"; an unfinished one lies in {folder / UNFINISHED}" if (folder / UNFINISHED).exists() else ""
        raise DataError(
            f"{folder} holds no .rec file{unfinished}: pack one with pfc data pack FOLDER --output {folder}"
        )
    single = folder / shard_name(0, 1)
    return [single] if single in found else found


def record_paths(records: RecordPath | Sequence[RecordPath]) -> list[Path]:
    """The files that ``records`` names, in order: a path or a list of paths, a folder as ``training_records`` says.

    Raises:
        DataError: nothing named, or as ``training_records``.
    """
    listed = [Path(records)] if isinstance(records, str | os.PathLike) else [Path(path) for path in records]
    if not listed:
        raise DataError("the list of record files is empty: name at least one .rec file")
    return [file for path in listed for file in (training_records(path) if path.is_dir() else [path])]


def find_records(path: Path) -> list[Path]:
    """The ``.rec`` files that ``path`` names: itself, or those its folder stands for.

    Raises:
        DataError: there is none, or not all of a data set's.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist: give a .rec file or a folder that holds one")
    return record_paths(path)
