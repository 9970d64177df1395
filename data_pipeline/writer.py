"""Writes image records as InsightFace lays them out: header record, images, one range record per identity."""

import operator
import os
import tempfile
import weakref
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from data_pipeline.errors import DataError
from data_pipeline.image_records import ImageRecords, check_image
from data_pipeline.pending_file import PendingFile


class RecordWriter:
    """Writes ``path`` and, beside it, the index with the suffix ``.idx``.

    Layout: record 0 is the global header (labels [first, end) of the range records' keys), the images have the
    keys 1..n in the order of the calls, and when the identities arrived in ascending order one range record per
    identity follows (labels [start, end) of its images' keys). In any other order the file is as valid and
    [first, end) is empty. MXNet's ``MXIndexedRecordIO`` and arcface_torch's ``MXFaceDataset`` read both.

    The header's labels are float32. From 2**24 images on they are rounded down, so that no reader takes a
    range record for an image; ``RecordReader`` finds the exact border by itself.

    ``plain`` leaves out header and range records, as im2rec does: every record is an image, with the keys 0..n-1,
    so that DALI's ``readers.mxnet`` and MXNet's ``ImageRecordIter`` read the file as it is.

    Both files are written under temporary names and renamed when the ``with`` block ends well; on an exception
    nothing is left. Without ``with``, ``close()`` publishes and ``discard()`` drops.

    Example:
        with RecordWriter("train.rec") as writer:
            writer.write(identity=0, jpeg=jpeg_bytes)
    """

    def __init__(self, path: str | os.PathLike[str], *, plain: bool = False) -> None:
        self.path = Path(path)
        if self.path.suffix != ".rec":
            raise DataError(f"{self.path}: a record file is named *.rec (its index goes to *.idx beside it)")
        if not self.path.parent.is_dir():
            raise DataError(f"{self.path}: the folder {self.path.parent} does not exist: make it first")
        self._records = PendingFile(self.path)
        self._index = PendingFile(self.path.with_suffix(".idx"))
        self._runs: BinaryIO = cast(BinaryIO, tempfile.TemporaryFile(dir=self.path.parent))  # noqa: SIM115
        self._forgotten = weakref.finalize(self, self._runs.close)
        self._content = ImageRecords(self._records.stream, self._index.stream, self._runs, plain=plain)

    @property
    def num_images(self) -> int:
        """Images written so far."""
        return self._content.num_images

    def write(self, identity: int, jpeg: bytes) -> None:
        """Append one image.

        Args:
            identity: int in [0, 2**44).
            jpeg: the encoded image, stored byte for byte.

        Raises:
            DataError: identity out of range, or nothing in ``jpeg``.
        """
        check_image(jpeg, self.num_images, identity, self.path)
        self._content.add(operator.index(identity), bytes(jpeg))

    def close(self) -> None:
        """Write what follows the images and give both files their names.

        Raises:
            DataError: no image was written; nothing is left then.
        """
        if self._records.stream.closed:
            return
        try:
            if not self.num_images:
                raise DataError(f"{self.path}: no image was written: nothing to publish")
            self._content.finish()
            self._records.finish()
            self._index.finish()
            # A crash between the two renames must not pair new records with an old index.
            self._index.path.unlink(missing_ok=True)
            self._records.publish()
            self._index.publish()
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop everything written so far; harmless after ``close()``."""
        self._records.discard()
        self._index.discard()
        self._runs.close()

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()
