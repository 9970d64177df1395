"""Verification pairs in InsightFace's `.bin` form: a pickle of (list of 2P image byte strings, list of P bools).

Pair p is images 2p and 2p + 1; flag p says whether they show the same identity.

Shapes: P pairs.
"""

import os
import pickle  # to write only: reading goes through `pickle_subset`, which runs nothing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.pending_file import write_file
from data_pipeline.pickle_calls import NumpyArray, PickleRefusedError
from data_pipeline.pickle_subset import read_pickle_subset

GOOD_FILE = "a verification set is a pickle of (list of 2P encoded images, list of P bools)"


@dataclass(frozen=True, eq=False)
class Pairs:
    """A verification set of P pairs: `jpegs` holds 2P encoded images, pair after pair; `same` is [P] bool."""

    jpegs: list[bytes]
    same: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.same)


def read_pairs(path: str | os.PathLike[str]) -> Pairs:
    """Read a `.bin` verification set of any origin (Python 2 or 3, MXNet, numpy arrays as images) safely.

    Nothing in the file is executed or imported, and memory stays within a small multiple of its size.
    Raises `DataError` when the file is missing, cut short, not such a pickle, or its counts do not match.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such verification set; {GOOD_FILE}")
    try:
        content = read_pickle_subset(path.read_bytes())
        return _pairs_of(content)
    except PickleRefusedError as error:
        raise DataError(f"{path}: {error}; {GOOD_FILE}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def write_pairs(path: str | os.PathLike[str], jpegs: Sequence[bytes], same: Sequence[bool] | NDArray[np.bool_]) -> None:
    """Write a verification set that InsightFace's own `pickle.load` reads; the file appears whole or not at all.

    `jpegs`: 2P encoded images, pair after pair; `same`: P flags. Raises `DataError` when the counts do not match.
    """
    path = Path(path)
    flags = [bool(flag) for flag in same]
    if not flags or len(jpegs) != 2 * len(flags):
        raise DataError(
            f"{path}: {len(jpegs)} images for {len(flags)} pairs; give 2 images for each of 1 or more pairs"
        )
    payload = pickle.dumps(([bytes(jpeg) for jpeg in jpegs], flags), protocol=4)
    try:
        write_file(path, payload)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror}); name a file in a folder you can write"
        ) from None


def _pairs_of(content: object) -> Pairs:
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise PickleRefusedError("is not a pair of lists")
    images, flags = content
    if isinstance(flags, NumpyArray):
        flags = list(flags.data) if flags.code == "b1" and len(flags.shape) == 1 else None
    if not isinstance(images, tuple | list) or not isinstance(flags, tuple | list):
        raise PickleRefusedError("is not a list of images and a list of flags")
    if not flags:
        raise PickleRefusedError("holds no pairs")
    if len(images) != 2 * len(flags):
        raise PickleRefusedError(f"holds {len(images)} images for {len(flags)} flags instead of {2 * len(flags)}")
    jpegs = [_image_bytes(index, image) for index, image in enumerate(images)]
    for index, flag in enumerate(flags):
        if not isinstance(flag, int) or flag not in (0, 1):
            raise PickleRefusedError(f"has a flag {index} that is neither true nor false")
    return Pairs(jpegs, np.array(flags, dtype=np.bool_))


def _image_bytes(index: int, image: object) -> bytes:
    """The encoded image itself: bytes, or a numpy uint8 vector of them ([n], [n, 1] or [1, n])."""
    if isinstance(image, NumpyArray) and image.code == "u1":
        if max(image.shape, default=0) != len(image.data):
            raise PickleRefusedError(f"has raw pixels {list(image.shape)} as image {index}, not an encoded image")
        image = image.data
    if not isinstance(image, bytes):
        raise PickleRefusedError(f"has an image {index} that is no byte string")
    if not image:
        raise PickleRefusedError(f"has an image {index} of no bytes")
    return image
