"""A picture of what an augmentation does: a row for each of some images, a column for each epoch."""

import dataclasses
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.augment_image import augment_image
from data_pipeline.augmentation import Augmentation
from data_pipeline.augmentation_draws import draw, draw_flips
from data_pipeline.decode_image import decode_image
from data_pipeline.pending_file import write_file
from data_pipeline.reader import RecordReader

_GAP = 4


def augmentation_sheet(
    reader: RecordReader, augmentation: Augmentation, *, seed: int, image_size: int, rows: int = 10, epochs: int = 8
) -> Image.Image:
    """Up to ``rows`` images, evenly spaced: first as they are, then as the first ``epochs`` epochs show them.

    An image that cannot be decoded leaves its row empty.
    """
    indices = np.unique(np.linspace(0, len(reader) - 1, min(rows, len(reader))).astype(np.int64))
    step = image_size + _GAP
    sheet = np.full((len(indices) * step + _GAP, (epochs + 1) * step + _GAP, 3), 250, dtype=np.uint8)
    off = dataclasses.replace(augmentation, flip=0.0, crop=0.0, down_up=0.0, blur=0.0, color=0.0, grayscale=0.0)
    for column in range(epochs + 1):
        chosen = (augmentation if column else off, indices, seed, max(column - 1, 0))
        draws, flips = draw(*chosen, image_size), draw_flips(chosen[0].flip, *chosen[1:])
        for row, index in enumerate(indices.tolist()):
            try:
                pixels = augment_image(decode_image(reader[index].jpeg), image_size, draws, row)
            except ValueError:
                continue
            _place(sheet, pixels[:, ::-1] if flips[row] else pixels, _GAP + row * step, _GAP + column * step)
    return Image.fromarray(sheet)


def write_augmentation_sheet(
    reader: RecordReader, path: Path, augmentation: Augmentation, *, seed: int, image_size: int
) -> None:
    """Write the sheet to ``path`` as PNG."""
    buffer = io.BytesIO()
    augmentation_sheet(reader, augmentation, seed=seed, image_size=image_size).save(buffer, "PNG")
    write_file(path, buffer.getvalue())


def _place(sheet: NDArray[np.uint8], pixels: NDArray[np.uint8] | NDArray[np.float32], top: int, left: int) -> None:
    height, width = pixels.shape[:2]
    sheet[top : top + height, left : left + width] = np.rint(pixels)
