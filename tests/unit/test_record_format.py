"""RecordIO framing and identity labels, byte by byte."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import DataError
from data_pipeline.record import decode_identities, identity_of, pack_header, pack_image, unpack_header
from data_pipeline.recordio import MAGIC_BYTES, RecordFile, frame

pytestmark = pytest.mark.unit


def read_back(path: Path, contents: list[bytes]) -> list[bytes]:
    framed = [frame(content) for content in contents]
    path.write_bytes(b"".join(framed))
    file, offset, found = RecordFile(path), 0, []
    for each in framed:
        assert file.end(offset, 0) == offset + len(each)
        found.append(file.read(offset, 0, guess=8))
        assert file.read(offset, 0, guess=1 << 20) == found[-1]
        offset += len(each)
    file.close()
    return found


def test_a_record_is_magic_length_content_padding() -> None:
    assert frame(b"abcde") == bytes.fromhex("0a23d7ce") + struct.pack("<I", 5) + b"abcde\0\0\0"
    assert frame(b"") == bytes.fromhex("0a23d7ce") + struct.pack("<I", 0)


def test_content_with_the_magic_number_is_cut_as_dmlc_core_does() -> None:
    # Flag 1 (first), 2 (middle), 3 (last) in the top three bits; the magic itself is left out.
    content = b"wxyz" + MAGIC_BYTES + MAGIC_BYTES + b"ab"
    expected = [(1, b"wxyz"), (2, b""), (3, b"ab\0\0")]
    lengths = [4, 0, 2]
    parts = [
        MAGIC_BYTES + struct.pack("<I", flag << 29 | length) + body
        for (flag, body), length in zip(expected, lengths, strict=True)
    ]
    assert frame(content) == b"".join(parts)


def test_a_magic_number_that_is_not_aligned_stays() -> None:
    assert frame(b"x" + MAGIC_BYTES + b"yz")[8:] == b"x" + MAGIC_BYTES + b"yz" + b"\0"
    # One that is not aligned must not hide the aligned one that begins inside it.
    assert frame(b"\0\0" + MAGIC_BYTES[:2] + MAGIC_BYTES)[4:8] == struct.pack("<I", 1 << 29 | 4)


# Dense in the magic number, whole and in part, at every alignment.
dense = st.lists(st.sampled_from([MAGIC_BYTES, b"a", b"bc", MAGIC_BYTES[:3], MAGIC_BYTES[2:], b"\0" * 4]))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(dense, st.lists(st.binary(max_size=40), max_size=2)), max_size=4))
def test_whatever_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, pieces: list[list[bytes]]) -> None:
    contents = [b"".join(each) for each in pieces]
    assert read_back(tmp_path_factory.mktemp("rec") / "a.rec", contents) == contents


@settings(deadline=None, max_examples=200)
@given(dense.map(b"".join))
def test_parts_are_cut_as_the_format_says(content: bytes) -> None:
    framed, place, flags, parts = frame(content), 0, [], []
    while place < len(framed):
        magic, word = struct.unpack_from("<II", framed, place)
        assert magic == int.from_bytes(MAGIC_BYTES, "little")
        length = word & (1 << 29) - 1
        part = framed[place + 8 : place + 8 + length]
        assert not any(part[at : at + 4] == MAGIC_BYTES for at in range(0, length, 4))
        assert framed[place + 8 + length : place + 8 + length + -length % 4] == bytes(-length % 4)
        flags.append(word >> 29)
        parts.append(part)
        place += 8 + length + -length % 4
    assert flags == ([0] if len(flags) == 1 else [1, *[2] * (len(flags) - 2), 3])
    assert MAGIC_BYTES.join(parts) == content


@settings(deadline=None, max_examples=300)
@given(identity=st.one_of(st.integers(0, 2**44 - 1), st.integers(0, 2**25)), key=st.integers(0, 2**64 - 1))
def test_any_identity_survives(identity: int, key: int) -> None:
    header = unpack_header(pack_image(identity, key, b"jpeg"), "here")
    assert (identity_of(header, "here"), header.key) == (identity, key)


@settings(deadline=None, max_examples=300)
@given(
    labels=st.lists(st.floats(width=32), min_size=1, max_size=5).map(tuple),
    mark=st.sampled_from([0, 20, 21, 2**64 - 1]),
)
def test_one_header_and_many_are_read_alike(labels: tuple[float, ...], mark: int) -> None:
    header = unpack_header(pack_header(labels, 3, mark) + b"jpeg", "here")
    assert np.array_equal(np.float32(header.labels), np.float32(labels[:2]), equal_nan=True), "two are enough to tell"
    first, second = (*labels, 0.0)[:2]
    columns = [np.array([value], dtype=kind) for value, kind in
               ((header.flag, "u4"), (mark, "u8"), (first, "f4"), (second, "f4"))]  # fmt: skip
    (found,) = decode_identities(*columns).tolist()
    try:
        assert identity_of(header, "here") == found >= 0
    except DataError:
        assert found == -1


@pytest.mark.parametrize("identity", [0, 1, 4037, 2**24 - 1, 2**24, 2**24 + 1, 2**24 + 2**20, 2**40 + 1, 2**44 - 1])
def test_identities_survive_exactly(identity: int) -> None:
    header = unpack_header(pack_image(identity, 7, b"jpeg"), "here")
    assert identity_of(header, "here") == identity
    assert header.key == 7
    labels = (*header.labels, 0.0)
    columns = [np.array([value], dtype=kind) for value, kind in
               ((header.flag, "u4"), (header.mark, "u8"), (labels[0], "f4"), (labels[1], "f4"))]  # fmt: skip
    assert decode_identities(*columns).tolist() == [identity]


def test_the_label_is_a_scalar_below_2_to_24_and_a_marked_pair_from_there() -> None:
    assert pack_image(16_777_215, 1, b"j") == struct.pack("<IfQQ", 0, 16_777_215.0, 1, 0) + b"j"
    assert pack_image(16_777_217, 1, b"j") == struct.pack("<IfQQ2f", 2, 0.0, 1, 20, 16.0, 1.0) + b"j"


@pytest.mark.parametrize("labels", [(5.0, 0.0), (5.0, 1.0), (5.0, 0.25, 9.5)])
def test_the_first_of_unmarked_labels_is_the_identity(labels: tuple[float, ...]) -> None:
    # InsightFace's own sets hold [identity, 0.0], and landmarks behind it in some.
    assert identity_of(unpack_header(pack_header(labels, 3) + b"jpeg", "here"), "here") == 5


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf"), 2.0**24 + 2])
def test_a_label_that_is_no_identity_is_refused(label: float) -> None:
    header = unpack_header(pack_header((label,), 3), "a.rec: record 3")
    with pytest.raises(DataError, match=r"a\.rec: record 3: label .* is not an identity"):
        identity_of(header, "a.rec: record 3")
    one = np.array([label], dtype=np.float32)
    nothing = np.zeros(1, dtype=np.uint32), np.zeros(1, dtype=np.uint64)
    assert decode_identities(*nothing, one, one).tolist() == [-1]


@pytest.mark.parametrize("identity", [-1, 2**44])
def test_identities_outside_the_format_are_refused(identity: int) -> None:
    with pytest.raises(DataError, match="outside"):
        pack_image(identity, 1, b"jpeg")


def test_more_labels_than_bytes_are_refused_before_anything_is_allocated() -> None:
    with pytest.raises(DataError, match="announces 4294967295 labels"):
        unpack_header(struct.pack("<IfQQ", 2**32 - 1, 0, 0, 0), "here")


def test_a_length_beyond_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    path.write_bytes(MAGIC_BYTES + struct.pack("<I", 500_000_000) + bytes(100))
    with pytest.raises(DataError, match=r"record 9 needs 500000008 bytes at byte 0 but the file ends at byte 108"):
        RecordFile(path).read(0, 9)
