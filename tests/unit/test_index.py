"""Indexes: their text, their place in memory, and how they are made again by scanning."""

import io
import itertools
import logging
import os
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_records import write_at, write_plain

from data_pipeline import DataError, RecordReader, RecordWriter
from data_pipeline import index_text as index_text_module
from data_pipeline.index import rebuild_index, scan_index
from data_pipeline.index_table import Index, IndexBuilder, RepeatedKeyError
from data_pipeline.index_text import NotAnIndexError, OffsetError, parse_index
from data_pipeline.offsets import Offsets
from data_pipeline.record import pack_header, pack_image
from data_pipeline.recordio import MAGIC_BYTES, RecordFile, frame

pytestmark = pytest.mark.unit

GIB = 1 << 30
EVERYWHERE = [16 * GIB - 4, 16 * GIB, 5 * GIB, 0, 4096 * GIB - 4, 4096 * GIB, (1 << 50) + 4]


def pairs_of(index: Index) -> list[tuple[int, int]]:
    return [(index.key(place), index.offsets[place]) for place in range(len(index))]


@pytest.mark.parametrize(
    ("file_bytes", "bytes_each"), [(16 * GIB, 4), (16 * GIB + 4, 5), (4096 * GIB, 5), (1 << 51, 8)]
)
def test_offsets_are_exact_in_files_of_any_size(file_bytes: int, bytes_each: int) -> None:
    wanted = [offset for offset in EVERYWHERE if offset < file_bytes]
    offsets = Offsets(len(wanted), file_bytes)
    offsets.put(slice(0, 2), np.array(wanted[:2]))
    offsets.put(np.arange(2, len(wanted)), np.array(wanted[2:], dtype=np.int64))
    assert offsets.nbytes == bytes_each * len(wanted)
    assert [offsets[place] for place in range(len(wanted))] == offsets.at(slice(None)).tolist() == wanted
    assert offsets.part(1, 3).at(np.array([1, 0])).tolist() == [wanted[2], wanted[1]]
    assert not offsets.ascend()


# Keys of all kinds: consecutive, with gaps, shuffled, beyond 32 and near 63 bits, negative.
keys_lists = st.one_of(
    st.builds(range, st.integers(-5, 2**40), st.just(0)).map(list),
    st.builds(lambda first, count: list(range(first, first + count)), st.integers(-5, 2**40), st.integers(1, 40)),
    st.lists(st.integers(0, 50), unique=True, max_size=40),
    st.lists(st.integers(-(10**17), 10**17), unique=True, max_size=12),
    st.permutations(list(range(7, 19))),
)


@settings(deadline=None, max_examples=150)
@given(
    data=st.data(),
    keys=keys_lists,
    file_bytes=st.sampled_from([1 << 12, 16 * GIB, 16 * GIB + 64, 1 << 51]),
    chunk=st.sampled_from([24, 64, 1 << 20]),
)
def test_whatever_text_says_is_indexed(data: st.DataObject, keys: list[int], file_bytes: int, chunk: int) -> None:
    words = st.lists(st.integers(0, file_bytes // 4 - 1), unique=True, min_size=len(keys), max_size=len(keys))
    offsets = [4 * word for word in data.draw(words)]
    between, end = st.sampled_from(["\t", " ", " \t "]), st.sampled_from(["\n", "\r\n", "\n\n", " \n", "\n \r\n"])
    text = "".join(
        f"{key}{data.draw(between)}{offset}{data.draw(end)}" for key, offset in zip(keys, offsets, strict=True)
    )
    if keys and data.draw(st.booleans()):
        text = text.rstrip()  # the last line without its end
    before = index_text_module._CHUNK
    index_text_module._CHUNK = chunk  # lines fall across the borders of what is read together
    try:
        index = parse_index(io.BytesIO(text.encode()), file_bytes)
    finally:
        index_text_module._CHUNK = before
    assert pairs_of(index) == sorted(zip(keys, offsets, strict=True))
    by_key = [offset for _, offset in sorted(zip(keys, offsets, strict=True))]
    assert index.in_file_order == (by_key == sorted(by_key))
    assert len(index) == 0 or index.offsets[index.last_in_file()] == max(offsets)
    for key in [*keys, 0, 13]:
        assert index.place_of(key) == sum(each < key for each in keys)


@settings(deadline=None, max_examples=60)
@given(keys=keys_lists.filter(len), seed=st.integers(0, 99))
def test_a_key_twice_is_an_error_wherever_it_stands(keys: list[int], seed: int) -> None:
    generator = random.Random(seed)
    twice = generator.choice(keys)
    generator.shuffle(keys)
    keys.insert(generator.randrange(len(keys) + 1), twice)
    builder = IndexBuilder(len(keys), 4 * len(keys))
    builder.add(np.array(keys, dtype=np.int64), 4 * np.arange(len(keys)))
    with pytest.raises(RepeatedKeyError) as caught:
        builder.finish()
    assert caught.value.key == twice


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("0\t0\n1\t40\t7\n2\t80\t8\n", NotAnIndexError, "line 2"),
        ("0\n0\n1\n40\n", NotAnIndexError, "line 1"),
        ("0\t0\n1\t4.5\n", NotAnIndexError, "line 2 is '1.t4.5'"),
        ("0\t0\n\n99999999999999999999\t40\n", NotAnIndexError, "line 3"),
        ("0\t0\n1\t9223372036854775807\n", NotAnIndexError, "line 2"),
        ("0\t0\n1\t0x28\n", NotAnIndexError, "line 2"),
        ("0\t0\n\0\n", NotAnIndexError, "line 2"),
        ("\u0663\t0\n", NotAnIndexError, "line 1"),
        ("0\t0\n1\t42\n", OffsetError, "record 1 cannot start at byte 42"),
        ("0\t0\n1\t100\n", OffsetError, "record 1 cannot start at byte 100"),
        ("7" * 3_000_000, NotAnIndexError, "million"),
    ],
)
def test_text_that_is_no_index_is_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_index(io.BytesIO(text.encode()), 100)


@pytest.mark.parametrize("step", [1, 3])
def test_the_wrong_line_is_counted_from_the_beginning(step: int) -> None:
    lines = [f"{key}\t{4 * key}\n" for key in range(0, 200_000 * step, step)]
    lines[150_000] = "oops\n"
    with pytest.raises(NotAnIndexError, match="line 150001 is 'oops'"):
        parse_index(io.BytesIO("".join(lines).encode()), 1 << 40)


@pytest.mark.parametrize(
    ("keys", "bytes_each", "held_each"),
    [("in order", 10, 5), ("shuffled", 18, 5), ("shuffled with gaps", 28, 9), ("beyond 32 bits", 38, 13)],
)
def test_memory_of_a_large_index(keys: str, bytes_each: int, held_each: int) -> None:
    count, slack = 400_000, 8 << 20  # what is parsed at once
    listed = list(range(count))
    if keys != "in order":
        random.Random(1).shuffle(listed)
    factor = {"in order": 1, "shuffled": 1, "shuffled with gaps": 3, "beyond 32 bits": 1 << 20}[keys]
    text = "".join(f"{factor * key}\t{5000 * place}\n" for place, key in enumerate(listed)).encode()
    stream = io.BytesIO(text)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        index = parse_index(stream, 40 * GIB)
        held, peak = (size - before for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert len(index) == count
    assert peak <= bytes_each * count + slack
    assert held <= held_each * count + (1 << 16)


def test_memory_of_reading_identities_is_bounded(tmp_path: Path) -> None:
    path = write_plain(
        tmp_path / "a.rec", [pack_header((float(number % 97),), number) + bytes(1000) for number in range(30_000)]
    )
    reader = RecordReader(path)
    tracemalloc.start()
    try:
        identities = reader.identities
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert identities.tolist() == [number % 97 for number in range(30_000)]
    assert peak < 16 << 20 < path.stat().st_size


def images(count: int, *, identity: int = 0) -> list[bytes]:
    """Contents of every shape: payloads dense in the magic number, of every length, large ones, all sorts of labels."""
    payloads = [
        b"x" * (1 + number) + MAGIC_BYTES * (number % 3) + b"y" * (number * 7919 % 90_000) for number in range(count)
    ]
    labels: list[tuple[float, ...]] = [(identity + 1.0,), (identity + 2.0, 0.0), (identity + 3.0, 0.5, -8.0)]
    return [pack_header(labels[number % 3], number) + payload for number, payload in enumerate(payloads)]


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_scan_finds_what_the_index_says(tmp_path: Path, shuffled: bool) -> None:
    contents = images(60)
    keys = list(range(60))
    if shuffled:
        random.Random(3).shuffle(keys)
        contents = [contents[key] for key in keys]
    path = write_plain(tmp_path / "a.rec", contents, keys)
    reader, before = RecordReader(path), path.with_suffix(".idx").read_bytes()
    records, identities = list(reader), reader.identities.tolist()
    path.with_suffix(".idx").unlink()
    scanned = RecordReader(path)
    assert list(scanned) == records
    assert scanned.identities.tolist() == identities == [record.identity for record in records]
    assert rebuild_index(path).records == 60
    assert path.with_suffix(".idx").read_bytes() == before, "in file order, byte for byte"


@settings(deadline=None, max_examples=60)
@given(
    contents=st.lists(
        st.lists(st.sampled_from([MAGIC_BYTES, b"a", b"bc", MAGIC_BYTES[:3], b"\0" * 4, b"z" * 9000])), max_size=9
    ),
    data=st.data(),
)
def test_scan_is_the_index_and_a_cut_file_gives_its_whole_records(
    tmp_path_factory: pytest.TempPathFactory, contents: list[list[bytes]], data: st.DataObject
) -> None:
    headed = [pack_header((float(place),), place) + b"".join(each) for place, each in enumerate(contents)]
    framed = [frame(content) for content in headed]
    ends = np.cumsum([0, *map(len, framed)]).tolist()
    path = tmp_path_factory.mktemp("rec") / "a.rec"
    size = data.draw(st.integers(0, ends[-1]))
    path.write_bytes(b"".join(framed)[:size])
    # Padding at the end may be missing: the content is whole all the same.
    whole = sum(
        end - (-len(content) % 4 if frame(content)[4:8] == len(content).to_bytes(4, "little") else 0) <= size
        for end, content in zip(ends[1:], headed, strict=True)
    )
    file = RecordFile(path)
    try:
        found = [(offset, stop) for offset, stop, _ in file.scan()]
        assert found[:whole] == list(itertools.pairwise(ends))[:whole]
        assert len(found) in (whole, whole + 1)  # one more where only a split record's padding is cut
        if found:
            index, end = scan_index(file)
            assert (len(index), end) == (len(found), found[-1][1])
            assert [file.read(index.offsets[place], 0) for place in range(whole)] == headed[:whole]
    finally:
        file.close()


def test_files_with_and_without_index_make_one_data_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = []
    for number, name in enumerate(("a", "b", "c")):
        paths.append(write_plain(tmp_path / f"{name}.rec", images(4, identity=10 * number), index=name != "b"))
    with caplog.at_level(logging.WARNING, logger="data_pipeline"):
        reader = RecordReader(paths)
    (said,) = caplog.messages
    assert said == (
        f"{paths[1]} has no index: scanned its 4 records; to scan once only: "
        f"pfc data inspect {paths[1]} --rebuild-index"
    )
    assert reader.identities.tolist() == [1, 2, 3, 1, 11, 12, 13, 11, 21, 22, 23, 21]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.idx", "a.rec", "b.rec", "c.idx", "c.rec"]


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "a.rec", images(3), index=False)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    try:
        assert len(RecordReader(path)) == 3
    finally:
        tmp_path.chmod(0o755)


def test_a_cut_file_without_index_is_refused_and_its_whole_records_can_be_kept(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "a.rec", images(5), index=False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"no index .*no whole record.*keep the 4 records.*--rebuild-index") as caught:
        RecordReader(path)
    assert "\n" not in str(caught.value)
    assert rebuild_index(path).records == 4
    assert len(RecordReader(path)) == 4


def test_ids_that_repeat_are_replaced_by_numbers(tmp_path: Path) -> None:
    contents = [pack_header((float(number),), 7) + b"jpeg" for number in range(5)]
    path = write_plain(tmp_path / "a.rec", contents, index=False)
    assert [record.identity for record in RecordReader(path)] == list(range(5))
    huge = [pack_header((float(number),), (1 << 64) - 1 - number) + b"jpeg" for number in range(5)]
    assert [record.identity for record in RecordReader(write_plain(tmp_path / "b.rec", huge, index=False))] == [
        0, 1, 2, 3, 4,
    ]  # fmt: skip


def test_insightface_files_are_recognised_without_their_index(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "a.rec") as writer:
        for identity in (0, 0, 1, 5):
            writer.write(identity, b"jpeg" * (identity + 1))
    (tmp_path / "a.idx").unlink()
    reader = RecordReader(tmp_path / "a.rec")
    assert reader.identities.tolist() == [0, 0, 1, 5]
    assert (reader.shards[0].layout, reader.shards[0].num_range_records) == ("insightface", 3)


def test_records_beyond_4_and_16_gib_are_read(tmp_path: Path) -> None:
    places = [0, 5 * GIB, 5 * GIB + 8000, 17 * GIB + 400, 17 * GIB + 20_000]
    contents = {
        offset: pack_image(2**24 + number, number, os.urandom(200 * (1 + number)) + MAGIC_BYTES)
        for number, offset in enumerate(places)
    }
    path = write_at(tmp_path / "a.rec", contents, keys=[9, 2, 3, 4, 5])
    assert path.stat().st_blocks * 512 < 1 << 20, "the file is sparse"
    reader = RecordReader(path)
    assert [record.identity - 2**24 for record in reader] == [1, 2, 3, 4, 0]
    assert reader.identities.tolist() == [record.identity for record in reader]
    assert [record.jpeg for record in reader] == [contents[place][32:] for place in [*places[1:], 0]]
    assert reader.describe(3) == f"{path}, record 5 at byte {places[4]}"


def test_a_scan_goes_beyond_4_gib(tmp_path: Path) -> None:
    # Records of 500 MB whose contents are holes; only heads and headers are written.
    length, count = 500_000_000, 10
    path = tmp_path / "a.rec"
    with path.open("wb") as stream:
        for number in range(count):
            stream.seek(number * (length + 8))
            stream.write(MAGIC_BYTES + length.to_bytes(4, "little") + pack_header((float(number),), number))
        stream.truncate(count * (length + 8))
    reader = RecordReader(path)
    assert reader.identities.tolist() == list(range(count))
    assert reader.shards[0].offsets[count - 1] == (count - 1) * (length + 8) > 4 * GIB
