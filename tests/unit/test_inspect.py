"""What ``pfc data inspect`` says and draws."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline import Augmentation, DataError, Properties, RecordReader, RecordWriter, write_properties
from data_pipeline.augmentation_sheet import augmentation_sheet
from data_pipeline.contact_sheet import contact_sheet, write_contact_sheet
from data_pipeline.decode_image import decode_image
from data_pipeline.summary import Summary, describe, find_records, histogram, summarize

pytestmark = pytest.mark.unit


def solid(colour: tuple[int, int, int], size: int = 16) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write(path: Path, images: list[tuple[int, bytes]]) -> RecordReader:
    with RecordWriter(path) as writer:
        for identity, jpeg in images:
            writer.write(identity, jpeg)
    return RecordReader(path)


@pytest.fixture
def reader(tmp_path: Path) -> RecordReader:
    counts = {0: 1, 1: 5, 2: 2, 4: 3}
    return write(
        tmp_path / "train.rec", [(each, solid((60 * each, 0, 0))) for each in counts for _ in range(counts[each])]
    )


def test_the_numbers_are_right(reader: RecordReader) -> None:
    summary = summarize(reader)
    assert (summary.num_identities, summary.num_images) == (5, 11)
    assert summary.per_identity == [1, 2, 3, 5]
    assert summary.sizes == {(16, 16): 11}
    assert summary.layout == "insightface"
    text = describe(summary)
    assert "min 1, median 2, mean 2.8, max 5" in text
    assert "16x16 (100.0%)" in text
    assert summary.warnings == ["1 of 5 identities have no image", "1 identities have a single image"]
    assert "warning" in text


def test_format_labels_order_and_bytes_are_told(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    identities = [0, 0, 1, 1, 2, 2**30]
    reader = write(tmp_path / "a.rec", [(n, buffer.getvalue() if n == 2 else solid((0, 0, 0))) for n in identities])
    summary = summarize(reader)
    assert summary.formats == {"JPEG": 5, "PNG": 1}
    assert summary.labels == {"scalar": 5, "two-float identity": 1}
    assert summary.sizes == {(16, 16): 6}
    assert summary.order == "sorted by identity"
    assert summary.range_records == 1 + 4
    assert summary.file_bytes == (tmp_path / "a.rec").stat().st_size
    assert "PNG (16.7%)" in describe(summary)
    assert "sample" not in describe(summary)
    assert "(sample of 3)" in describe(summarize(reader, sample=3))


@pytest.mark.parametrize(
    ("identities", "order"),
    [
        ([3, 3, 1, 1, 1, 2], "grouped by identity"),
        (np.random.default_rng(0).integers(0, 30, 400).tolist(), "shuffled"),
        ([*sorted(np.random.default_rng(0).integers(0, 30, 400).tolist()), 0, 1], "partly grouped (32 runs"),
        ([4, 1, 3], "one image per identity"),
    ],
)
def test_the_order_of_identities_is_told(tmp_path: Path, identities: list[int], order: str) -> None:
    assert summarize(write(tmp_path / "a.rec", [(n, b"x") for n in identities])).order.startswith(order)


def test_records_that_cannot_be_read_do_not_hide_the_others(tmp_path: Path) -> None:
    reader = write(tmp_path / "a.rec", [(n, solid((0, 0, 0))) for n in (0, 0, 1, 1)])
    with (tmp_path / "a.rec").open("r+b") as stream:
        stream.seek(int(reader.shards[0].offsets[2]))
        stream.write(b"\0")
    summary = summarize_with_known_identities(reader, [0, 0, 1, 1])
    assert "1 of 4 records looked at cannot be read" in summary.warnings
    assert summary.sizes == {(16, 16): 3}
    assert np.asarray(contact_sheet(reader)).size


def summarize_with_known_identities(reader: RecordReader, identities: list[int]) -> Summary:
    """As if the record had been damaged after its label was read."""
    reader.__dict__["identities"] = np.array(identities)
    return summarize(reader)


def test_a_sample_covers_both_ends(tmp_path: Path) -> None:
    images = [(0, solid((0, 0, 0), 16 if number in (0, 29) else 8)) for number in range(30)]
    assert summarize(write(tmp_path / "a.rec", images), sample=3).sizes == {(16, 16): 2, (8, 8): 1}


def test_what_looks_wrong_is_said(tmp_path: Path) -> None:
    reader = write(tmp_path / "a.rec", [(0, solid((0, 0, 0))), (0, b"GIF89a"), (7, solid((0, 0, 0), 8)), (7, b"?")])
    write_properties(tmp_path, Properties(3, 16, 16))
    warnings = " | ".join(summarize(reader).warnings)
    assert "property says 3 identities but the largest identity is 7" in warnings
    assert "different sizes" in warnings
    assert "2 of 4 images looked at are no JPEG" in warnings
    write_properties(tmp_path, Properties(8, 99, 99))
    other = write(tmp_path / "b.rec", [(7, solid((0, 0, 0)))])
    assert "property says 99x99, the images are (16, 16)" in " | ".join(summarize(other).warnings)


def test_the_histogram_doubles_its_classes() -> None:
    assert histogram([1, 1, 2, 3, 9, 2000]) == [
        f"{'1':>18}  {2:>9} " + "#" * 40,
        f"{'2-3':>18}  {2:>9} " + "#" * 40,
        f"{'4-7':>18}  {0:>9}",
        f"{'8-15':>18}  {1:>9} " + "#" * 20,
        *(f"{f'{1 << power:,}-{(2 << power) - 1:,}':>18}  {0:>9}" for power in range(4, 10)),
        f"{'1,024-2,047':>18}  {1:>9} " + "#" * 20,
    ]


def test_the_sheet_has_a_row_for_an_identity(reader: RecordReader, tmp_path: Path) -> None:
    sheet = np.asarray(contact_sheet(reader, rows=10, columns=4))
    step, margin = 116, 72
    assert sheet.shape == (3 * step + 4, margin + 4 * step + 4, 3)  # identity 0 has a single image and stays out
    for row, (identity, count) in enumerate([(1, 4), (2, 2), (4, 3)]):
        for column in range(4):
            middle = sheet[4 + row * step + 56, margin + column * step + 56]
            expected = (60 * identity, 0, 0) if column < count else (250, 250, 250)
            assert np.abs(middle.astype(int) - expected).max() < 6
    write_contact_sheet(reader, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as written:
        assert written.size == (margin + 5 * step + 4, 3 * step + 4)


def test_an_image_that_cannot_be_decoded_is_a_red_tile(tmp_path: Path) -> None:
    sheet = np.asarray(contact_sheet(write(tmp_path / "a.rec", [(0, b"bad"), (3, solid((0, 0, 0)))])))
    assert sheet[60, 130].tolist() == [200, 60, 60]


def test_records_are_found_in_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.rec file"):
        find_records(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_records(tmp_path / "absent.rec")
    for name in ("b.rec", "a.rec", "a.idx"):
        (tmp_path / name).touch()
    assert find_records(tmp_path) == [tmp_path / "a.rec", tmp_path / "b.rec"]
    assert find_records(tmp_path / "b.rec") == [tmp_path / "b.rec"]


def test_a_sheet_shows_what_an_augmentation_does(reader: RecordReader) -> None:
    sheet = np.asarray(augmentation_sheet(reader, Augmentation(color=1.0), seed=0, image_size=16, rows=3, epochs=2))
    tiles = sheet[4:, 4:].reshape(3, 20, 3, 20, 3)[:, :16, :, :16].transpose(0, 2, 1, 3, 4)
    assert np.array_equal(tiles[2, 0], decode_image(solid((240, 0, 0))))
    assert not np.array_equal(tiles[2, 0], tiles[2, 1])
    assert not np.array_equal(tiles[2, 1], tiles[2, 2])
