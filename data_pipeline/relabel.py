"""The relabel file: text that says which identities and which single images get another identity or leave.

Lines of fields separated by tabs, UTF-8; empty lines and lines that begin with ``#`` are passed over:

    OLD<tab>NEW             all images of identity OLD become NEW; several OLD with one NEW are merged
    OLD<tab>drop            identity OLD leaves the data set (``-1`` means the same)
    image<tab>INDEX<tab>NEW     one image moves to identity NEW, whatever is said of its own identity
    image<tab>INDEX<tab>drop    one image leaves

INDEX is the image's position in the data set from 0 (``batch.indices``, ``reader[i]``). What is not named stays as it
is. A further field is a remark for human readers.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.record import MAX_IDENTITY

DROP = -1


@dataclass(frozen=True, eq=False, slots=True)
class Relabel:
    """Identities ``old`` [n] become ``new`` [n] (DROP: leave); images at ``indices`` [m] become ``image_new`` [m].

    old and indices are ascending, without repetition.
    """

    old: NDArray[np.int64]
    new: NDArray[np.int64]
    indices: NDArray[np.int64]
    image_new: NDArray[np.int64]

    def apply(self, identities: NDArray[np.int64], where: Path) -> NDArray[np.int64]:
        """Identity of every image afterwards, [images]; DROP for those that leave. ``where`` names the file.

        Raises:
            DataError: the file speaks of an identity or an image that is not there.
        """
        present = np.unique(identities)
        absent = np.setdiff1d(self.old, present, assume_unique=True)
        if len(absent):
            raise DataError(
                f"{where}: identity {absent[0]} has no image in the input ({len(absent)} such lines): "
                "give the relabel file of this data set, or remove the lines"
            )
        if len(self.indices) and self.indices[-1] >= len(identities):
            raise DataError(
                f"{where}: image {self.indices[-1]} is not among the {len(identities)} of the input (0 to "
                f"{len(identities) - 1}): give the relabel file of this data set"
            )
        relabelled = identities.copy()
        if len(self.old):
            place = np.minimum(np.searchsorted(self.old, identities), len(self.old) - 1)
            named = self.old[place] == identities
            relabelled[named] = self.new[place[named]]
        relabelled[self.indices] = self.image_new
        return relabelled


def read_relabel(path: Path) -> Relabel:
    """Read a relabel file.

    Raises:
        DataError: names the first line that is of no known form, or that speaks of something for the second time.
    """
    identities: dict[int, int] = {}
    images: dict[int, int] = {}
    try:
        stream = path.open(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot open {path}: {error.strerror}; give a relabel file") from error
    with stream:
        try:
            for number, line in enumerate(stream, start=1):
                if not line.strip() or line.startswith("#"):
                    continue
                fields = [field.strip() for field in line.rstrip("\r\n").split("\t")]
                target, fields = (images, fields[1:]) if fields[0] == "image" else (identities, fields)
                old, new = _whole(fields[0]) if fields else None, _new(fields)
                if old is None or new is None:
                    raise DataError(
                        f"{path}: line {number} ({line.strip()[:80]!r}) is neither 'OLD<tab>NEW' nor "
                        "'image<tab>INDEX<tab>NEW' (NEW: a number from 0 or drop)"
                    )
                if old in target:
                    what = "image" if target is images else "identity"
                    raise DataError(f"{path}: line {number} names {what} {old} for the second time: keep one line")
                target[old] = new
        except UnicodeDecodeError:
            raise DataError(f"{path} is not UTF-8 text: give a relabel file") from None
    return Relabel(*_arrays(identities), *_arrays(images))


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 15 and int(text) < MAX_IDENTITY else None


def _new(fields: list[str]) -> int | None:
    if len(fields) < 2:
        return None
    return DROP if fields[1] in ("drop", "-1") else _whole(fields[1])


def _arrays(mapping: dict[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    keys = np.fromiter(mapping.keys(), np.int64, len(mapping))
    values = np.fromiter(mapping.values(), np.int64, len(mapping))
    order = np.argsort(keys)
    return keys[order], values[order]
