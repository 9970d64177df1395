"""One or several data sets as one: their images one after another, their identities apart or in one space."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from data_pipeline.decode_image import decode_image
from data_pipeline.draft import IDENTITY_NAMES
from data_pipeline.errors import DataError
from data_pipeline.image_size import jpeg_size
from data_pipeline.reader import RecordReader
from data_pipeline.record_set import find_records

IdentitySpaces = Literal["separate", "shared"]


class RecordInputs:
    """The data sets at ``paths`` (record files, or folders of one), in this order.

    identities: [images] int64, of all images; with "separate" spaces those of a data set are shifted by
    ``offsets`` of it, the number of identities of all before it; with "shared" the numbers are taken as they are.
    num_identities: of the whole. names: identity -> name, from the identities.txt of each.

    Raises:
        DataError: unreadable records, or names that contradict each other in a shared space.
    """

    def __init__(self, paths: Sequence[Path], spaces: IdentitySpaces = "separate") -> None:
        if not paths:
            raise DataError("no input: give at least one data set")
        if spaces not in get_args(IdentitySpaces):
            raise DataError(f"identities {spaces!r}: separate or shared")
        self.paths = list(paths)
        self.readers = [RecordReader(find_records(path)) for path in paths]
        sizes = [max(reader.num_identities, int(reader.identities.max()) + 1) for reader in self.readers]
        shared = spaces == "shared"
        self.offsets = [0] * len(sizes) if shared else [0, *accumulate(sizes[:-1])]
        self.num_identities = max(sizes) if shared else sum(sizes)
        shifted = [reader.identities + offset for reader, offset in zip(self.readers, self.offsets, strict=True)]
        self.identities: NDArray[np.int64] = shifted[0] if len(shifted) == 1 else np.concatenate(shifted)
        self._starts = [0, *accumulate(len(reader) for reader in self.readers)]
        self.names = self._merged_names()

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

    def _merged_names(self) -> dict[int, str]:
        names: dict[int, str] = {}
        for reader, offset in zip(self.readers, self.offsets, strict=True):
            path = reader.paths[0].parent / IDENTITY_NAMES
            for number, name in read_identity_names(path):
                if names.setdefault(number + offset, name) != name:
                    raise DataError(
                        f"identity {number} is {names[number + offset]!r} in an earlier input and {name!r} in {path}: "
                        "these are not the same identities, keep them apart with --identities separate"
                    )
        return names


def read_identity_names(path: Path) -> Iterator[tuple[int, str]]:
    """The lines ``identity<tab>name`` of a file; none where it does not exist.

    Raises:
        DataError: a line of another form.
    """
    try:
        lines = path.read_text("utf-8", "surrogateescape").split("\n")
    except FileNotFoundError:
        return
    for place, line in enumerate(lines, start=1):
        number, tab, name = line.rstrip("\r").partition("\t")
        if tab and number.isascii() and number.isdigit() and len(number) < 15:
            yield int(number), name
        elif line.strip():
            raise DataError(f"{path}: line {place} ({line[:80]!r}) is not 'identity<tab>name': correct or remove it")


def identity_names_text(names: dict[int, str]) -> bytes:
    """The content of an identities.txt."""
    text = "".join(f"{number}\t{names[number]}\n" for number in sorted(names))
    return text.encode("utf-8", "surrogateescape")
