"""Writes image records as InsightFace lays them out: header record, images, one range record per identity."""

import operator
import os
from array import array
from pathlib import Path
from types import TracebackType

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.pending_file import PendingFile
from data_pipeline.record import pack_header, pack_image
from data_pipeline.recordio import frame


def _rounded_down(key: int) -> float:
    """The largest float32 that is at most ``key``."""
    value = np.float32(key)
    return float(np.nextafter(value, np.float32(0)) if int(value) > key else value)


class RecordWriter:
    """Writes ``path`` and, beside it, the index with the suffix ``.idx``.

    Layout: record 0 is the global header (labels [first, end) of the range records' keys), the images have the
    keys 1..n in the order of the calls, and when the identities arrived in ascending order one range record per
    identity follows (labels [start, end) of its images' keys). In any other order the file is as valid and
    [first, end) is empty. MXNet's ``MXIndexedRecordIO`` and arcface_torch's ``MXFaceDataset`` read both.

    The header's labels are float32. From 2**24 images on they are rounded down, so that no reader takes a
    range record for an image; ``RecordReader`` finds the exact border by itself.

    Both files are written under temporary names and renamed when the ``with`` block ends well; on an exception
    nothing is left. Without ``with``, ``close()`` publishes and ``discard()`` drops.

    Example:
        with RecordWriter("train.rec") as writer:
            writer.write(identity=0, jpeg=jpeg_bytes)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.suffix != ".rec":
            raise DataError(f"{self.path}: a record file is named *.rec (its index goes to *.idx beside it)")
        if not self.path.parent.is_dir():
            raise DataError(f"{self.path}: the folder {self.path.parent} does not exist: make it first")
        self._records = PendingFile(self.path)
        self._offsets = array("q")
        self._end = 0
        self._num_images = 0
        self._starts = array("q")  # key of the first image of each identity, while the order is ascending
        self._last_identity = -1
        self._ascending = True
        self._add(pack_header((0.0, 0.0), 0))  # the place of the header, filled when the counts are known

    @property
    def num_images(self) -> int:
        """Images written so far."""
        return self._num_images

    def write(self, identity: int, jpeg: bytes) -> None:
        """Append one image.

        Args:
            identity: int in [0, 2**44).
            jpeg: the encoded image, stored byte for byte.

        Raises:
            DataError: identity out of range, or nothing in ``jpeg``.
        """
        if not jpeg:
            raise DataError(f"{self.path}: image {self.num_images} (identity {identity}) has no bytes: leave it out")
        identity, key = operator.index(identity), len(self._offsets)
        self._add(pack_image(identity, key, bytes(jpeg)))
        self._num_images += 1
        if identity != self._last_identity:
            self._ascending = self._ascending and identity > self._last_identity
            self._last_identity = identity
            if self._ascending:
                self._starts.append(key)

    def close(self) -> None:
        """Write what follows the images and give both files their names.

        Raises:
            DataError: no image was written; nothing is left then.
        """
        if self._records.stream.closed:
            return
        try:
            self._complete()
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop everything written so far; harmless after ``close()``."""
        self._records.discard()

    def _complete(self) -> None:
        if not self._num_images:
            raise DataError(f"{self.path}: no image was written: nothing to publish")
        first = len(self._offsets)
        if self._ascending:
            for start, stop in zip(self._starts, [*self._starts[1:], first], strict=True):
                self._add(pack_header((_rounded_down(start), _rounded_down(stop)), len(self._offsets)))
        borders = (_rounded_down(first), _rounded_down(len(self._offsets)))
        self._records.stream.seek(0)
        self._records.stream.write(frame(pack_header(borders, 0)))
        self._records.finish()
        index_path = self.path.with_suffix(".idx")
        with PendingFile(index_path) as index:
            for start in range(0, len(self._offsets), 1 << 16):
                lines = (
                    f"{start + i}\t{offset}\n" for i, offset in enumerate(self._offsets[start : start + (1 << 16)])
                )
                index.stream.write("".join(lines).encode())
            index.finish()
            # A crash between the two renames must not pair new records with an old index.
            index_path.unlink(missing_ok=True)
            self._records.publish()

    def _add(self, content: bytes) -> None:
        framed = frame(content)
        self._records.stream.write(framed)
        self._offsets.append(self._end)
        self._end += len(framed)

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
