"""One or several data sets as one: their images one after another, their identities apart or in one space."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import get_args

from data_pipeline.decode_image import decode_image
from data_pipeline.errors import DataError
from data_pipeline.image_size import jpeg_size
from data_pipeline.merged_identities import IdentitySpaces, merge_spaces
from data_pipeline.reader import RecordReader
from data_pipeline.record_set import find_records


class RecordInputs:
    """The data sets at ``paths`` (record files, or folders of one), in this order.

    identities: [images] int64, of all images. With "separate" spaces those of a data set are shifted by the number of
    identities of all before it; with "shared" the numbers are taken as they are; with "named" whoever has a name of an
    earlier data set gets the number there, and all others are numbered on.
    num_identities: of the whole. names: of its identities, from the identities.tsv of each; where a data set has none,
    its identities are named by their numbers. None where no data set has names and no number changes here.

    Raises:
        DataError: unreadable records, or names that contradict each other.
    """

    def __init__(self, paths: Sequence[Path], spaces: IdentitySpaces = "separate") -> None:
        if not paths:
            raise DataError("no input: give at least one data set")
        if spaces not in get_args(IdentitySpaces):
            raise DataError(f"identities {spaces!r}: {', '.join(get_args(IdentitySpaces)[:-1])} or named")
        self.paths = list(paths)
        self.readers = [RecordReader(find_records(path)) for path in paths]
        merged = merge_spaces(self.readers, spaces)
        self.identities, self.num_identities, self.names = merged.identities, merged.num_identities, merged.names
        self.remarks = [f"{path}: {remark}" for path, remark in zip(paths, merged.remarks, strict=True)]
        self._starts = [0, *accumulate(len(reader) for reader in self.readers)]

    def __len__(self) -> int:
        return self._starts[-1]

    def jpeg(self, position: int) -> bytes:
        """The encoded image at ``position``."""
        number = bisect_right(self._starts, position) - 1
        return self.readers[number][position - self._starts[number]].jpeg

    def image_size(self) -> tuple[int, int] | None:
        """(height, width) as the first property file says, else of the first image; None where neither can tell."""
        for reader in self.readers:
            if (properties := reader.properties) is not None:
                return properties.height, properties.width
        first = self.jpeg(0)
        try:
            height, width = jpeg_size(first) or decode_image(first).shape[:2]
        except ValueError:
            return None
        return (height, width) if height and width else None

    def close(self) -> None:
        """Close the files."""
        for reader in self.readers:
            reader.close()

    def __enter__(self) -> "RecordInputs":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
