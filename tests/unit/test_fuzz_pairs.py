"""Malformed verification sets: a typed error or pairs; no crash, hang or large allocation."""

import pickle
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hostile_files import bounded, changed, run_within_bounds
from hypothesis import example, given

from data_pipeline import DataError
from data_pipeline.pairs import read_pairs

pytestmark = pytest.mark.unit

_IMAGES = [b"\xff\xd8 image", bytes(range(256)), b"b" * 40, b"c"]
_ARRAYS = [np.frombuffer(each, dtype=np.uint8) for each in _IMAGES]
FILES = [
    *(pickle.dumps((_IMAGES, [True, False]), protocol=protocol) for protocol in range(6)),
    *(pickle.dumps((_ARRAYS, np.array([True, False])), protocol=protocol) for protocol in (2, 4, 5)),
    pickle.dumps(([bytearray(each) for each in _IMAGES], [np.bool_(True), np.bool_(False)]), protocol=5),
]


@bounded(1200)
@given(changed(FILES))
@example(b"\x80\x04\x8e" + b"\xff" * 8)
@example(b"(" * 300)
@example(b"]" + b"h\0" * 100)
@example(b"\x80\x02]q\0(" + b"h\0" * 120 + b"e.")
def test_any_pairs_file_is_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.bin"
        path.write_bytes(content)
        run_within_bounds(partial(read_or_refused, path), len(content), per_byte=256, floor=1 << 17)


def read_or_refused(path: Path) -> None:
    try:
        pairs = read_pairs(path)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert len(pairs.jpegs) == 2 * len(pairs)
        assert all(type(each) is bytes and each for each in pairs.jpegs)
