"""A set of face images as users have them: a `.rec` (or a folder of them), or a folder of aligned crops.

N images.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline import RecordReader
from data_pipeline.errors import DataError
from data_pipeline.pack_listing import SUFFIXES
from trainer.evaluation.image_sources import FileImages, ImageSource, RecordImages


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Images and whose they are: identities [N]."""

    source: ImageSource
    identities: NDArray[np.int64]


def open_face_set(path: Path) -> FaceSet:
    """Identities are a record's label, or the first folder below ``path`` that an image lies in.

    Raises:
        DataError: nothing there, or no images.
    """
    if path.is_file() or (path.is_dir() and any(path.glob("*.rec"))):
        reader = RecordReader(path)
        return FaceSet(RecordImages(reader), reader.identities)
    if not path.is_dir():
        raise DataError(f"{path}: no such .rec or folder of images")
    files = list(_images(path))
    if not files:
        raise DataError(f"{path}: holds neither .rec nor images ({', '.join(sorted(SUFFIXES))})")
    _, identities = np.unique([file.split("/", 1)[0] for file in files], return_inverse=True)
    return FaceSet(FileImages(path, files), identities.astype(np.int64))


def _images(root: Path) -> Iterator[str]:
    """Image files below ``root``, as paths with "/", sorted folder by folder."""
    pending = [""]
    while pending:
        below = pending.pop()
        folders = []
        with os.scandir(root / below) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(f"{below}{entry.name}/")
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:  # noqa: PTH122
                    yield f"{below}{entry.name}"
        pending += reversed(folders)
