"""Sound images and ways of damaging them, one for each reason that a single record can be bad."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipeline import RecordWriter

SIZE = 32


def picture(seed: int, height: int = SIZE, width: int = SIZE, kind: str = "JPEG", **options: Any) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


def without_end_marker(jpeg: bytes) -> bytes:
    return jpeg[:-2]


def cut_in_half(encoded: bytes) -> bytes:
    return encoded[: len(encoded) // 2]


def not_an_image(_: bytes) -> bytes:
    return b"\xff\xd8 not a JPEG at all"


def marker_in_the_scan(jpeg: bytes) -> bytes:
    """A restart marker where none belongs: both libraries fill the rest with grey and say nothing."""
    return jpeg[: len(jpeg) - 60] + b"\xff\xd0" + jpeg[len(jpeg) - 58 :]


def broken_tables(jpeg: bytes) -> bytes:
    """A Huffman table that cannot be: its structure is sound, so only a decoder finds out."""
    at = jpeg.index(b"\xff\xc4") + 5  # behind marker, length and class
    return jpeg[:at] + b"\xff" * 8 + jpeg[at + 8 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "without_end_marker": (without_end_marker, "truncated"),
    "cut_in_half": (cut_in_half, "truncated"),
    "not_an_image": (not_an_image, "undecodable"),
    "marker_in_the_scan": (marker_in_the_scan, "undecodable"),
    "broken_tables": (broken_tables, "undecodable"),
}


def write_images(folder: Path, jpegs: list[bytes], images_per_identity: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    with RecordWriter(folder / "train.rec") as writer:
        for number, jpeg in enumerate(jpegs):
            writer.write(number // images_per_identity, jpeg)
    return folder / "train.rec"


def write_with_bad(folder: Path, count: int, bad: Mapping[int, Callable[[bytes], bytes]]) -> Path:
    """``count`` images, those in ``bad`` damaged; image i is the same picture in every such file."""
    jpegs = [picture(number) for number in range(count)]
    return write_images(folder, [bad[n](jpeg) if n in bad else jpeg for n, jpeg in enumerate(jpegs)])
