"""Packing from list files, by several processes, into several shards."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data_pipeline.pack_run
from data_pipeline import DataError, RecordReader
from data_pipeline.pack import PackOptions, pack_images
from data_pipeline.pack_list import Listed, read_list
from data_pipeline.record_set import find_records
from data_pipeline.shard_cut import ShardCut

pytestmark = pytest.mark.unit

SMALL = PackOptions(image_size=24)


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    colours = np.random.default_rng(number).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((24, 24)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Twelve images in two folders."""
    paths = [f"images/{number % 2}/{number}.jpg" for number in range(12)]
    for number, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(picture(number))
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def listed(tmp_path: Path, lines: list[str], end: str = "\n") -> Path:
    path = tmp_path / "images.lst"
    path.write_bytes(end.join([*lines, ""]).encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_im2rec_list_keeps_its_numbers_and_order(tmp_path: Path, images: list[str], end: str) -> None:
    labels = [5, 0, 5, 2**24 + 1, 2, 2, 0, 0, 9, 9, 1, 5]
    lines = [f"{90 - n}\t{label}{'.000000' if n % 2 else ''}\t{images[n]}" for n, label in enumerate(labels)]
    packed = pack_images(listed(tmp_path, lines, end), tmp_path / "out", SMALL)
    with RecordReader(packed.records) as reader:
        assert [tuple(record) for record in reader] == [(label, picture(n)) for n, label in enumerate(labels)]
    assert sorted(contents(tmp_path / "out")) == ["property", "train.idx", "train.rec"], "numbers have no names"
    assert (tmp_path / "out" / "property").read_text() == f"{2**24 + 2},24,24\n"


def test_a_list_of_names_is_numbered_in_its_order(tmp_path: Path, images: list[str]) -> None:
    names = ["zoë", "adam", "zoë", "12", "adam b", "zoë"]
    lines = [f"{path}\t{name}" for path, name in zip(images, names, strict=False)]
    (tmp_path / "lists").mkdir()
    source = listed(tmp_path / "lists", ["", *lines[:3], "  ", *lines[3:]])
    packed = pack_images(source, tmp_path / "out", SMALL, root=tmp_path)
    assert RecordReader(packed.records).identities.tolist() == [0, 1, 0, 2, 3, 0]
    assert (tmp_path / "out" / "identities.tsv").read_text("utf-8") == "0\tzoë\n1\tadam\n2\t12\n3\tadam b\n"
    with pytest.raises(DataError, match=r"images/0/0.jpg is not a readable image \(No such file"):
        pack_images(source, tmp_path / "elsewhere", SMALL)
    assert not (tmp_path / "elsewhere").exists()


def test_folder_and_list_of_the_same_images_pack_alike(tmp_path: Path, images: list[str]) -> None:
    pack_images(tmp_path / "images", tmp_path / "a", SMALL)
    lines = [f"{path}\t{path.split('/')[1]}" for path in sorted(images, key=lambda path: path.split("/")[1:])]
    pack_images(listed(tmp_path, lines), tmp_path / "b", SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_missing_file_is_left_out_when_asked_for(tmp_path: Path, images: list[str]) -> None:
    lines = [f"{images[0]}\tann", "absent.jpg\tbob", f"{images[1]}\tcid"]
    options = PackOptions(image_size=24, skip_bad=True)
    packed = pack_images(listed(tmp_path, lines), tmp_path / "out", options)
    assert (packed.identities, packed.images, len(packed.skipped)) == (2, 2, 1)
    assert (tmp_path / "out" / "identities.tsv").read_text() == "0\tann\n1\tcid\n", "bob has no image and no number"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0\t1\ta.jpg", "1\t2"], "line 2 .* has 2 fields, unlike the lines before"),
        (["a.jpg\tann", "a.jpg\tbob\tcid"], "line 2 .* has 3 fields"),
        (["0\t1\ta.jpg", "x\t1\ta.jpg"], "line 2 .* begins with 'x', which is no index"),
        (["0\t1.5\ta.jpg"], r"line 1 .* has the label '1\.5'"),
        (["0\t-1\ta.jpg"], "line 1 .* has the label '-1'"),
        (["0\tnan\ta.jpg"], "line 1 .* has the label 'nan'"),
        ([f"0\t{2**44}\ta.jpg"], "below 2"),
        (["0\t" + "9" * 5000 + "\ta.jpg"], "below 2"),
        (["a.jpg"], "line 1 .* is not an image and its identity"),
        (["a.jpg\t"], "line 1 .* is not an image and its identity"),
        (["0\t1\t"], "line 1 .* is not an image and its identity"),
        (["a.jpg\tan\x1bn"], "line 1 .* unprintable"),
        (["a\0.jpg\tann"], "line 1 .* is not an image and its identity"),
        ([], "no folder with readable images"),
    ],
)
def test_wrong_lists_are_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        pack_images(listed(tmp_path, lines), tmp_path / "out", SMALL)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"a.jpg\tann\n\xff\xd8\xff\xe0\n")
    with pytest.raises(DataError, match="line 2 is not UTF-8 text"):
        list(read_list(tmp_path / "list"))
    (tmp_path / "list").write_bytes(b"x" * 100_000)
    with pytest.raises(DataError, match="line 1 is longer than 65536 bytes"):
        list(read_list(tmp_path / "list"))
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfa.jpg\tann\n")
    assert list(read_list(tmp_path / "list")) == [Listed(None, "ann", "a.jpg")]


def test_more_labels_than_one(tmp_path: Path) -> None:
    assert list(read_list(listed(tmp_path, ["7\t3\t0.5\t0.25\ta b.jpg"]))) == [Listed(3, "", "a b.jpg")]


@pytest.mark.parametrize("cut", [ShardCut(), ShardCut(shards=5), ShardCut(max_images=4)])
@pytest.mark.parametrize("plain", [False, True])
def test_any_number_of_workers_writes_the_same_bytes(
    tmp_path: Path, images: list[str], cut: ShardCut, plain: bool
) -> None:
    (tmp_path / "images" / "0" / "bad.png").write_bytes(b"bad")
    (tmp_path / "images" / "00").mkdir()
    options = PackOptions(image_size=20, skip_bad=True, cut=cut, plain=plain)
    packed = [pack_images(tmp_path / "images", tmp_path / str(n), options, workers=n) for n in (1, 3)]
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert packed[0].skipped == packed[1].skipped
    assert len(packed[0].skipped) == 2
    assert len(RecordReader(find_records(tmp_path / "1"))) == 12


def test_wrong_options(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is for the paths in a list file"):
        pack_images(tmp_path / "..", tmp_path / "out", SMALL, root=tmp_path)
    with pytest.raises(DataError, match="0 workers"):
        pack_images(tmp_path, tmp_path / "out", SMALL, workers=0)


def test_memory_does_not_grow_with_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is in the images does not matter here, and decoding 15,000 takes its time.
    monkeypatch.setattr(data_pipeline.pack_run, "encode_images", lambda paths, *_: [b"jpeg" * 20] * len(paths))

    def peak(files: int) -> int:
        source = listed(tmp_path, [f"{number}\t{number // 3}\timages/{number}.jpg" for number in range(files)])
        tracemalloc.start()
        try:
            assert pack_images(source, tmp_path / "out", SMALL, overwrite=True).images == files
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # whatever is made once
    small, large = peak(5_000), peak(15_000)
    assert large < small + 200_000, f"{large - small} bytes more for 10,000 files more"
