"""Packing a folder-per-identity tree."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline import DataError, RecordReader
from data_pipeline.pack import pack_folder

pytestmark = pytest.mark.unit


def picture(seed: int, width: int = 24, height: int = 24) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), dtype=np.int16)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "faces"
    for name in ("zoë", "adam", "mia"):
        (folder / name).mkdir(parents=True)
    picture(0).save(folder / "zoë" / "1.jpg", quality=80)
    picture(1).save(folder / "adam" / "b.png")
    picture(2, 50, 40).save(folder / "adam" / "a.JPEG")
    picture(3).save(folder / "mia" / "x.webp", lossless=True)
    picture(4).save(folder / "mia" / "y.bmp")
    picture(5).convert("L").save(folder / "mia" / "z.png")
    (folder / "mia" / "notes.txt").write_text("not an image")
    (folder / ".cache").mkdir()
    (folder / "README").write_text("not a folder")
    return folder


def test_names_are_sorted_and_numbered(tree: Path, tmp_path: Path) -> None:
    packed = pack_folder(tree, tmp_path / "out", image_size=24)
    assert (packed.identities, packed.images, packed.skipped) == (3, 6, [])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "identities.tsv", "property", "train.idx", "train.rec",
    ]  # fmt: skip
    assert (tmp_path / "out" / "identities.tsv").read_text(encoding="utf-8") == "0\tadam\n1\tmia\n2\tzoë\n"
    assert (tmp_path / "out" / "property").read_text() == "3,24,24\n"
    assert RecordReader(packed.records).identities.tolist() == [0, 0, 1, 1, 1, 2]


def test_a_jpeg_of_the_right_size_is_stored_as_it_is_and_others_are_converted(tree: Path, tmp_path: Path) -> None:
    reader = RecordReader(pack_folder(tree, tmp_path / "out", image_size=24).records)
    assert reader[5].jpeg == (tree / "zoë" / "1.jpg").read_bytes()
    assert {Image.open(io.BytesIO(record.jpeg)).format for record in reader} == {"JPEG"}
    assert {pixels(record.jpeg).shape for record in reader} == {(24, 24, 3)}
    expected = np.asarray(picture(1), dtype=np.int16)
    assert np.abs(pixels(reader[1].jpeg) - expected).mean() < 6  # JPEG's loss at quality 95


def test_quality_decides_the_size(tree: Path, tmp_path: Path) -> None:
    sizes = [
        pack_folder(tree, tmp_path / str(quality), image_size=24, quality=quality).records.stat().st_size
        for quality in (30, 95)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("bad", [b"", b"\xff\xd8\xff broken", b"GIF89a"])
def test_a_bad_image_stops_and_leaves_nothing(tree: Path, tmp_path: Path, bad: bytes) -> None:
    (tree / "mia" / "bad.jpg").write_bytes(bad)
    with pytest.raises(DataError, match=r"mia/bad\.jpg is not a readable image \(.*--skip-bad") as caught:
        pack_folder(tree, tmp_path / "out", image_size=24)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bad_images_are_left_out_when_asked_for(tree: Path, tmp_path: Path) -> None:
    (tree / "mia" / "bad.jpg").write_bytes((tree / "zoë" / "1.jpg").read_bytes()[:200])
    (tree / "adam" / "bad.png").write_bytes(b"nothing")
    (tree / "bert").mkdir()
    packed = pack_folder(tree, tmp_path / "out", image_size=24, skip_bad=True)
    assert (packed.identities, packed.images) == (3, 6)
    assert [line.split(" ")[0].split("/")[-1] for line in packed.skipped] == ["bad.png", "bert", "bad.jpg"]


def test_what_cannot_be_packed_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tree / "nobody").mkdir()
    (tmp_path / "file").touch()
    out = tmp_path / "out"
    for folder, message in (
        (tmp_path / "absent", "is not a folder"),
        (tmp_path / "empty", "holds no folder with readable images"),
        (tree, "nobody holds no images"),
    ):
        with pytest.raises(DataError, match=message):
            pack_folder(folder, out)
    with pytest.raises(DataError, match="quality 101"):
        pack_folder(tree, out, quality=101)
    with pytest.raises(DataError, match="would become a part of it"):
        pack_folder(tree, tree / "out")
    with pytest.raises(DataError, match="cannot make the folder"):
        pack_folder(tree, tmp_path / "file" / "out")
    assert not out.exists()


def test_existing_output_is_kept_unless_overwritten(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = pack_folder(tree, out, image_size=24).records.read_bytes()
    with pytest.raises(DataError, match=r"train\.rec exists: .*--overwrite"):
        pack_folder(tree, out, image_size=32)
    (tree / "adam" / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(DataError, match="not a readable image"):
        pack_folder(tree, out, image_size=32, overwrite=True)
    assert (out / "train.rec").read_bytes() == before
    assert len(list(out.iterdir())) == 4
    (tree / "adam" / "bad.jpg").unlink()
    pack_folder(tree, out, image_size=32, overwrite=True)
    assert (out / "property").read_text() == "3,32,32\n"
    assert len(RecordReader(out / "train.rec")) == 6
