"""Writing record files and reading them: layouts, lists, damage."""

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_records import write_plain

from data_pipeline import DataError, Properties, RecordReader, RecordWriter, check_identities, write_properties
from data_pipeline.index import rebuild_index
from data_pipeline.record import pack_header, pack_image
from data_pipeline.recordio import MAGIC_BYTES, frame

pytestmark = pytest.mark.unit

IMAGES = [(0, b"a" * 5), (0, b"b"), (1, b"c" * 70_000), (3, MAGIC_BYTES * 3), (3, b"e" * 7)]


def write(path: Path, images: list[tuple[int, bytes]] = IMAGES) -> Path:
    with RecordWriter(path) as writer:
        for identity, jpeg in images:
            writer.write(identity, jpeg)
    return path


def contents_of(path: Path) -> list[bytes]:
    """Contents of all records, by the index alone."""
    data, found = path.read_bytes(), []
    for line in path.with_suffix(".idx").read_text().splitlines():
        offset = int(line.split("\t")[1])
        found.append(data[offset + 8 : offset + 8 + struct.unpack_from("<I", data, offset + 4)[0]])
    return found


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with RecordReader(write(tmp_path / "a.rec")) as reader:
        assert len(reader) == len(IMAGES)
        assert [(record.identity, record.jpeg) for record in reader] == IMAGES
        assert reader[-1].jpeg == IMAGES[-1][1]
        assert reader.identities.dtype == np.int64
        assert reader.identities.tolist() == [identity for identity, _ in IMAGES]
        assert reader.num_identities == 4


def test_the_layout_is_insightfaces(tmp_path: Path) -> None:
    images = [(0, b"jpg1"), (0, b"jpg2"), (7, b"jpg3")]
    contents = contents_of(write(tmp_path / "a.rec", images))
    assert contents[0] == struct.pack("<IfQQ2f", 2, 0, 0, 0, 4, 6)  # range records have the keys 4 and 5
    assert contents[1:4] == [
        struct.pack("<IfQQ", 0, identity, key, 0) + jpeg for key, (identity, jpeg) in enumerate(images, start=1)
    ]
    assert contents[4:] == [struct.pack("<IfQQ2f", 2, 0, 4, 0, 1, 3), struct.pack("<IfQQ2f", 2, 0, 5, 0, 3, 4)]


def test_without_ascending_identities_there_are_no_range_records(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec", [(1, b"x"), (0, b"y"), (1, b"z")])
    assert contents_of(path)[0] == struct.pack("<IfQQ2f", 2, 0, 0, 0, 4, 4)
    assert RecordReader(path).identities.tolist() == [1, 0, 1]


def test_float32_does_not_merge_large_identities(tmp_path: Path) -> None:
    identities = [16_777_215, 16_777_216, 16_777_217, 2**40 + 1]
    reader = RecordReader(write(tmp_path / "a.rec", [(identity, b"j") for identity in identities]))
    assert [record.identity for record in reader] == identities
    assert reader.identities.tolist() == identities
    assert reader.num_identities == 2**40 + 2


def test_a_header_rounded_to_float32_still_finds_the_border(tmp_path: Path) -> None:
    # 2**24 + 1 images: the header can say 2**24 or 2**24 + 2. A filtered index keeps the file small.
    first = 2**24 + 2
    contents = [pack_header((2.0**24, 2.0**24 + 8), 0)]
    contents += [pack_header((5.0,), key) + b"jpeg" for key in (2**24 - 1, 2**24, 2**24 + 1)]
    contents += [pack_header((1.0, 2.0), first), pack_header((2.0, 3.0), first + 1)]
    path = write_plain(tmp_path / "a.rec", contents, [0, 2**24 - 1, 2**24, 2**24 + 1, first, first + 1])
    assert len(RecordReader(path)) == 3


def test_a_plain_file_is_all_images(tmp_path: Path) -> None:
    labels = [(3.0,), (1.0, 0.0), (2.0, 0.0, 8.5), (0.0,)]
    path = write_plain(tmp_path / "a.rec", [pack_header(label, key) + b"jpeg" for key, label in enumerate(labels)])
    reader = RecordReader(path)
    assert reader.identities.tolist() == [record.identity for record in reader] == [3, 1, 2, 0]


def test_images_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    contents = [pack_header((float(key),), key) + b"jpeg" for key in (5, 2, 9)]
    path = write_plain(tmp_path / "a.rec", contents, [5, 2, 9])
    assert [record.identity for record in RecordReader(path)] == [2, 5, 9]


def test_a_header_split_by_the_magic_number_is_decoded(tmp_path: Path) -> None:
    key = int.from_bytes(MAGIC_BYTES, "little")  # the id field is aligned, so the record is cut inside its header
    path = write_plain(tmp_path / "a.rec", [pack_header((6.0,), key) + b"jpeg", pack_header((1.0,), 1) + b"j"])
    reader = RecordReader(path)
    assert reader.identities.tolist() == [record.identity for record in reader] == [6, 1]
    before = path.with_suffix(".idx").read_text()
    rebuild_index(path)
    assert path.with_suffix(".idx").read_text() == before.replace("0\t0", f"{key}\t0")


def test_lists_of_files_are_concatenated(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.rec"), write(tmp_path / "b.rec", [(9, b"j")]), write(tmp_path / "c.rec", IMAGES[:2])]
    reader = RecordReader(paths)
    assert [tuple(record) for record in reader] == [*IMAGES, (9, b"j"), *IMAGES[:2]]
    assert reader.identities.tolist() == [0, 0, 1, 3, 3, 9, 0, 0]
    assert reader.describe(5) == f"{paths[1]}, record 1 at byte 40"


@pytest.mark.parametrize("position", [5, -6])
def test_positions_outside_are_index_errors(tmp_path: Path, position: int) -> None:
    with pytest.raises(IndexError, match="of 5"):
        RecordReader(write(tmp_path / "a.rec"))[position]


def test_a_pickled_reader_opens_its_files_again(tmp_path: Path) -> None:
    reader = RecordReader(write(tmp_path / "a.rec"))
    copy = pickle.loads(pickle.dumps(reader))
    reader.close()
    assert [tuple(record) for record in copy] == IMAGES


def test_the_property_file_counts_identities(tmp_path: Path) -> None:
    write_properties(tmp_path, Properties(11, 112, 112))
    assert RecordReader(write(tmp_path / "a.rec")).num_identities == 11
    (tmp_path / "property").write_text("11,112\n")
    with pytest.raises(DataError, match="num_identities,height,width"):
        _ = RecordReader(tmp_path / "a.rec").num_identities


def test_an_identity_outside_the_classes_is_named(tmp_path: Path) -> None:
    reader = RecordReader(write(tmp_path / "a.rec"))
    check_identities(reader, 4)
    with pytest.raises(DataError, match=r"image 3 has identity 3, outside \[0, 3\) .*record 4 .*at least 4"):
        check_identities(reader, 3)


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power"), RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, b"jpeg")
        raise RuntimeError("power cut")
    with pytest.raises(DataError, match="no image was written"), RecordWriter(tmp_path / "a.rec"):
        pass
    forgotten = RecordWriter(tmp_path / "a.rec")
    forgotten.write(0, b"jpeg")
    del forgotten
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_keeps_the_old_files(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec")
    with pytest.raises(DataError, match="no bytes"), RecordWriter(path) as writer:
        writer.write(5, b"")
    assert [tuple(record) for record in RecordReader(path)] == IMAGES


@pytest.mark.parametrize("name", ["a.bin", "missing/a.rec"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"\*\.rec|does not exist"):
        RecordWriter(tmp_path / name)


def test_a_truncated_file_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec")
    whole = path.read_bytes()
    offsets = [int(line.split("\t")[1]) for line in path.with_suffix(".idx").read_text().splitlines()]
    for size in (len(whole) - 1, len(whole) - 39, offsets[5] + 20, offsets[3] + 1000, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=rf"record \d+ .*file ends at byte {size};.*--rebuild-index"):
            RecordReader(path)
    with pytest.raises(DataError, match="no whole RecordIO record"):
        rebuild_index(path)


def test_a_truncated_file_keeps_its_whole_records(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec")
    path.write_bytes(path.read_bytes()[:50_000])  # in the middle of the third image
    rebuilt = rebuild_index(path)
    assert rebuilt.records == 3
    assert rebuilt.lost_bytes > 40_000
    assert [tuple(record) for record in RecordReader(path)] == IMAGES[:2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\t0\n1\n", "not an index"),
        ("0\tzero\n", "not an index"),
        ("", "lists no records"),
        ("0\t0\n1\t40\n1\t80\n", "key 1 twice"),
        ("0\t0\n1\t-4\n", "record 1 should start at byte -4"),
        ("0\t0\n1\t41\n", "record 1 should start at byte 41"),
        ("0\t0\n1\t99999999999\n", "the file is truncated"),
        ("0\t0\n1\t44\n", "no RecordIO record starts at byte 44"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.rec")
    path.with_suffix(".idx").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        RecordReader(path)
    assert "\n" not in str(caught.value)


def test_damage_inside_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.rec")
    data = bytearray(path.read_bytes())
    data[40:44] = b"oops"
    path.write_bytes(data)
    reader = RecordReader(path)
    for look in (lambda: reader[0], lambda: reader.identities):
        with pytest.raises(DataError, match=r"record 1: no RecordIO record starts at byte 40"):
            look()


def test_no_files_and_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="list of record files is empty"):
        RecordReader([])
    with pytest.raises(DataError, match="cannot open"):
        RecordReader(tmp_path / "absent.rec")
    with pytest.raises(DataError, match="holds no images"):
        RecordReader(write_plain(tmp_path / "a.rec", [pack_header((1.0, 1.0), 0)]))
    with pytest.raises(DataError, match="no image bytes"):
        RecordReader(write_plain(tmp_path / "b.rec", [pack_header((1.0,), 0)]))[0]


def test_a_header_that_would_lose_images_is_refused(tmp_path: Path) -> None:
    contents = [pack_header((3.0, 3.0), 0), *(pack_header((float(key),), key) + b"jpeg" for key in range(1, 6))]
    with pytest.raises(DataError, match="no image follows key 2, but record 3 holds one"):
        RecordReader(write_plain(tmp_path / "a.rec", contents))


def test_folders_stand_for_their_files(tmp_path: Path) -> None:
    for name in ("b.rec", "a.rec"):
        write(tmp_path / name, [(int(name == "b.rec"), b"j")])
    assert [record.identity for record in RecordReader(tmp_path)] == [0, 1]
    write(tmp_path / "train.rec", [(7, b"j")])
    assert RecordReader(str(tmp_path)).paths == [tmp_path / "train.rec"]
    assert len(RecordReader([tmp_path, tmp_path / "a.rec"])) == 2
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no \.rec file"):
        RecordReader(tmp_path / "empty")


def test_links_find_the_index_of_what_they_lead_to(tmp_path: Path) -> None:
    for folder in ("data", "links"):
        (tmp_path / folder).mkdir()
    path, link = write(tmp_path / "data" / "a.rec"), tmp_path / "links" / "faces.rec"
    link.symlink_to(path)
    before = [tuple(record) for record in RecordReader(link)]
    assert before == IMAGES
    (tmp_path / "links" / "faces.idx").write_text("0\t0\n1\t40\n")  # its own comes first
    assert len(RecordReader(link)) == 1
    with pytest.raises(DataError, match="cannot open"):
        broken = tmp_path / "links" / "broken.rec"
        broken.symlink_to(tmp_path / "gone.rec")
        RecordReader(broken)


def test_without_property_file_the_labels_are_counted(tmp_path: Path) -> None:
    reader = RecordReader([write(tmp_path / "a.rec"), write(tmp_path / "b.rec", [(90, b"j")])])
    assert (reader.properties, reader.num_identities) == (None, 91)


@pytest.mark.parametrize(
    ("labels", "identity"),
    [((5.0,), 5), ((5.0, 1.0), 5), ((5.0, 0.5), 5), ((2.0**24, 3.5, -1.0), 2**24), ((5.0, *[9.5] * 140), 5)],
)
def test_label_vectors_begin_with_the_identity(tmp_path: Path, labels: tuple[float, ...], identity: int) -> None:
    content = struct.pack(f"<IfQQ{len(labels)}f", len(labels), 99.0, 3, 0, *labels) + b"\x89PNG and so on"
    reader = RecordReader(write_plain(tmp_path / "a.rec", [content, pack_header((1.0,), 1) + b"jpeg"]))
    assert [record.identity for record in reader] == reader.identities.tolist() == [identity, 1]
    assert reader[0].jpeg == b"\x89PNG and so on"


@pytest.mark.parametrize("labels", [(-5.0,), (0.5, 1.0), (float("nan"), 1.0, 2.0), (2.0**24 + 2, 0.0)])
def test_label_vectors_that_begin_with_none_are_refused(tmp_path: Path, labels: tuple[float, ...]) -> None:
    content = struct.pack(f"<IfQQ{len(labels)}f", len(labels), 0.0, 3, 0, *labels) + b"jpeg"
    reader = RecordReader(write_plain(tmp_path / "a.rec", [pack_header((1.0,), 0) + b"jpeg", content]))
    for look in (lambda: reader[1], lambda: reader.identities):
        with pytest.raises(DataError, match=r"record 1: label .* is not an identity"):
            look()


@pytest.mark.parametrize("low", [0.5, -1.0, float(2**20)])
def test_a_marked_pair_must_be_two_whole_numbers(tmp_path: Path, low: float) -> None:
    path = write_plain(tmp_path / "a.rec", [struct.pack("<IfQQ2f", 2, 0.0, 0, 20, 16.0, low) + b"jpeg"])
    with pytest.raises(DataError, match="is not an identity"):
        _ = RecordReader(path)[0]


@settings(deadline=None, max_examples=80)
@given(
    images=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 2**44 - 1), st.integers(2**24 - 3, 2**24 + 3), st.integers(0, 5)),
            st.one_of(
                st.binary(min_size=1, max_size=60),
                st.lists(st.sampled_from([MAGIC_BYTES, b"a", MAGIC_BYTES[1:]]), min_size=1, max_size=9).map(b"".join),
            ),
        ),
        min_size=1,
        max_size=12,
    ),
    ascending=st.booleans(),
)
def test_whatever_is_written_is_read_with_the_index_and_without(
    tmp_path_factory: pytest.TempPathFactory, images: list[tuple[int, bytes]], ascending: bool
) -> None:
    images = sorted(images) if ascending else images
    path = write(tmp_path_factory.mktemp("rec") / "a.rec", images)
    for _ in range(2):
        with RecordReader(path) as reader:
            assert [tuple(record) for record in reader] == images
            assert reader.identities.tolist() == [identity for identity, _ in images]
        path.with_suffix(".idx").unlink(missing_ok=True)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), shards=st.integers(1, 4), shuffled=st.booleans())
def test_a_batch_is_its_images(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, shards: int, shuffled: bool
) -> None:
    folder = tmp_path_factory.mktemp("rec")
    paths = []
    for number in range(shards):
        labels = [(7.0,), (2.0**24,), (3.0, 0.5), (1.0, 0.0, 8.0)]
        contents = [
            pack_image(2**30 + each, each, b"z" * 70_000)
            if each == 4
            else pack_header(labels[each % 4], each) + bytes(each * 31) + MAGIC_BYTES * (each % 2) + b"x"
            for each in range(7)
        ]
        paths.append(write_plain(folder / f"{number}.rec", contents, [3, 0, 6, 5, 1, 2, 4] if shuffled else None))
    with RecordReader(paths) as reader:
        positions = data.draw(st.lists(st.integers(0, len(reader) - 1), max_size=20))
        identities, jpegs = reader.read_batch(np.array(positions, dtype=np.int64))
        assert identities.dtype == np.int64
        expected = [tuple(reader[each]) for each in positions]
        assert list(zip(identities.tolist(), jpegs, strict=True)) == expected
        rows = reader.read_rows(np.array(positions, dtype=np.int64), b"\0")
        if rows is not None:
            assert list(zip(rows[0].tolist(), rows[1], strict=True)) == expected
            assert rows[2] == list(range(len(positions))), "none of them is known to be a whole JPEG"
        assert rows is not None or not positions or max(len(each) for _, each in expected) > 10_000


@pytest.mark.parametrize("payload", [9, 50_000])
def test_a_file_cut_short_while_it_is_open_is_an_error_and_no_crash(tmp_path: Path, payload: int) -> None:
    contents = [pack_header((5.0,), key) + bytes(payload) for key in range(40)]
    path = write_plain(tmp_path / "a.rec", contents)
    each = len(frame(contents[0]))
    for left in (4, 12, 30, each - 4):  # bytes of record 20: in its head, before its label, behind it, in the image
        path.write_bytes(b"".join(map(frame, contents)))
        with RecordReader(path) as reader:
            os.truncate(path, 20 * each + left)
            for look in (lambda: reader[20], lambda: reader.read_batch(np.arange(40))):
                with pytest.raises(DataError, match=r"record 20 needs|record 20: no RecordIO|too few"):
                    look()
            with pytest.raises(DataError, match=r"record 2[01]"):
                _ = reader.identities
