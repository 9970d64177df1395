"""Record files of any number of records that take hardly any disk: a real index beside holes."""

from pathlib import Path

import numpy as np

from data_pipeline.index_text import write_index
from data_pipeline.record import pack_image
from data_pipeline.recordio import frame

_SMALLEST, _LARGEST = 3_000, 7_000  # bytes of a record, as 112 x 112 JPEGs have them


def write_opening_files(folder: Path, records: int, files: int, seed: int) -> list[Path]:
    """``records`` plain records over ``files`` files, named by number; only each file's first and last one exist.

    An index lists every record, in the order of the file, at the offsets that real images would have.
    """
    generator = np.random.default_rng(seed)
    paths = []
    for number in range(files):
        count = records * (number + 1) // files - records * number // files
        sizes = 4 * generator.integers(_SMALLEST // 4, _LARGEST // 4, count)
        offsets = np.cumsum(sizes) - sizes
        path = folder / f"{number:03d}.rec"
        with path.open("wb") as stream:
            for offset in (int(offsets[0]), int(offsets[-1])):
                stream.seek(offset)
                stream.write(frame(pack_image(number, 0, bytes(_SMALLEST - 32))))
        write_index(path.with_suffix(".idx"), np.arange(count, dtype=np.int64), offsets)
        paths.append(path)
    return paths
