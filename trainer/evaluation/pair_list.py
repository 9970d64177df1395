"""Lists of pairs: ``IMAGE<tab>IMAGE<tab>same`` or ``different`` (or 1 and 0), images by path or by record index.

P pairs, M different images.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from trainer.evaluation.number_table import read_text

FORM = "give lines 'IMAGE<tab>IMAGE<tab>same' or '...different', images by path or, with --records, by index"
_LABELS = {"same": True, "1": True, "different": False, "0": False}


@dataclass(frozen=True, eq=False)
class PairList:
    """images: M names, each once.  first, second: [P] which of them.  same: [P]."""

    images: list[str]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


def read_pair_list(path: Path) -> PairList:
    """Read a list; fields are separated by tabs, or by blanks where there is no tab. Empty lines and # are left out.

    Raises:
        DataError: names the first line of another form.
    """
    places: dict[str, int] = {}
    first, second, same = [], [], []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) != 3 or not all(fields) or "\0" in line:
            raise DataError(f"{path}: line {number} is no pair ({line[:80]!r}): {FORM}")
        label = _LABELS.get(fields[2].lower())
        if label is None:
            raise DataError(f"{path}: line {number} says {fields[2]!r}: write same or different (1 or 0)")
        first.append(places.setdefault(fields[0], len(places)))
        second.append(places.setdefault(fields[1], len(places)))
        same.append(label)
    if not same:
        raise DataError(f"{path}: lists no pairs: {FORM}")
    return PairList(list(places), np.array(first), np.array(second), np.array(same, dtype=np.bool_))


def record_positions(path: Path, pairs: PairList, images: int) -> NDArray[np.int64]:
    """Position [M] of each image of a list among ``images`` records.

    Raises:
        DataError: an index that is none, or outside the data set.
    """
    for name in pairs.images:
        if not (name.isascii() and name.isdigit()) or int(name) >= images:
            raise DataError(
                f"{path}: image {name!r} is no index of a record: the data set has images 0 to {images - 1}"
            )
    return np.array([int(name) for name in pairs.images], dtype=np.int64)
