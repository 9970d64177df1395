"""Encoded images of a batch as the rows of one array: a decoder takes them without a Python object for each.

Shapes: B images, L bytes of a row.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipeline.image_size import jpeg_size


class ImageRows(Sequence[bytes]):
    """B encoded images. rows: [B, L] uint8, zeros behind each image; lengths: [B] int64, bytes of each.

    alike: [B] bool, whether an image begins with ``header``, that of a whole JPEG up to its entropy-coded data.
    """

    def __init__(
        self, rows: NDArray[np.uint8], lengths: NDArray[np.int64], alike: NDArray[np.bool_], header: bytes
    ) -> None:
        self.rows = rows
        self.lengths = lengths
        self._alike = alike
        self._header = header

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> bytes:  # type: ignore[override]  # no slices
        return self.rows[place, : self.lengths[place]].tobytes()

    @property
    def all_jpeg(self) -> bool:
        """Whether all begin as a JPEG does: what stands behind a JPEG's end marker is nobody's concern."""
        return self.rows.shape[1] > 1 and bool((self.rows[:, 0] == 0xFF).all() and (self.rows[:, 1] == 0xD8).all())

    def other_size(self, image_size: int) -> NDArray[np.bool_]:
        """[B]: as :func:`other_size`."""
        right = (image_size, image_size)
        other = np.full(len(self), jpeg_size(self._header) != right)
        for place in np.flatnonzero(~self._alike).tolist():
            other[place] = jpeg_size(self[place]) != right
        return other


def other_size(images: Sequence[bytes], image_size: int) -> NDArray[np.bool_]:
    """[B]: whether an image is anything but a JPEG of ``image_size`` by ``image_size`` pixels."""
    if isinstance(images, ImageRows):
        return images.other_size(image_size)
    right = (image_size, image_size)
    return np.array([jpeg_size(each) != right for each in images], dtype=np.bool_)
