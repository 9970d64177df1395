"""Compiled reading of whole batches: what it reads is what Python reads, and what it cannot is left to Python."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from damaged_images import DAMAGES, SIZE, picture, write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline import Augmentation, RecordReader, make_loader, native_library, row_reading
from data_pipeline.errors import BadRecordError
from data_pipeline.image_fault import ImageCheck
from data_pipeline.image_rows import ImageRows, other_size
from data_pipeline.image_size import jpeg_size

pytestmark = pytest.mark.unit

HAS_DALI = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
DECODERS = [pytest.param("dali", marks=pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")), "cpu"]
PLAIN = [picture(number) for number in range(9)]


def header_of(jpeg: bytes) -> bytes:
    check = ImageCheck()
    assert check(jpeg) is None
    return check.known_header


def rows_of(reader: RecordReader, header: bytes = b"\0") -> tuple[list[int], ImageRows, list[int]]:
    found = reader.read_rows(np.arange(len(reader)), header)
    assert found is not None
    return found[0].tolist(), found[1], found[2]


def test_the_library_was_built() -> None:
    assert native_library.available(), "this environment has a compiler: make venv builds it"


def test_images_with_the_known_header_need_no_look_from_python(tmp_path: Path) -> None:
    other = picture(3, quality=40)  # other tables: another header
    progressive = picture(4, progressive=True)
    jpegs = [*PLAIN, other, progressive, picture(5, kind="PNG"), b"x"]
    reader = RecordReader(write_images(tmp_path, jpegs, images_per_identity=1))
    identities, images, unknown = rows_of(reader, header_of(PLAIN[0]))
    assert identities == list(range(len(jpegs)))
    assert list(images) == jpegs
    assert unknown == [9, 10, 11, 12]
    assert [len(set(row[length:])) for row, length in zip(images.rows, images.lengths, strict=True)].count(2) == 0
    assert all(not row[length:].any() for row, length in zip(images.rows, images.lengths, strict=True))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_image_that_the_check_refuses_is_taken_for_sound(data: st.DataObject, tmp_path_factory: Any) -> None:
    """Any bytes behind the header, with many markers and ends among them."""
    header = header_of(PLAIN[0])
    pieces = st.sampled_from([b"\xff", b"\x00", b"\xd9", b"\xff\xd9", b"\xff\x00", b"\xff\xd0", b"a", b"\n"])
    bodies = data.draw(st.lists(st.lists(pieces, max_size=8).map(b"".join), min_size=1, max_size=8))
    jpegs = [header[: len(header) - len(body) % 3] + body for body in bodies]
    reader = RecordReader(write_images(tmp_path_factory.mktemp("rows"), jpegs))
    _, images, unknown = rows_of(reader, header)
    assert list(images) == jpegs
    known = ImageCheck()
    known(PLAIN[0])
    for place in set(range(len(jpegs))) - set(unknown):
        assert known(jpegs[place]) is None and ImageCheck()(jpegs[place]) is None


def test_one_long_image_leaves_the_batch_to_the_other_way(tmp_path: Path) -> None:
    reader = RecordReader(write_images(tmp_path, [*PLAIN, bytes(60_000)]))
    assert reader.read_rows(np.arange(10), b"\0") is None
    assert list(rows_of(RecordReader(write_images(tmp_path / "short", PLAIN)))[1]) == PLAIN
    assert reader.read_rows(np.arange(0), b"\0") is None


def test_shuffled_keys_make_sizes_guesses(tmp_path: Path) -> None:
    """Records longer than guessed are read again, with room."""
    sizes = [500, 40, 60, 1200, 80, 700, 30]
    path = write_images(tmp_path, [bytes([number]) * size for number, size in enumerate(sizes)], 1)
    lines = path.with_suffix(".idx").read_text().splitlines()
    path.with_suffix(".idx").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    reader = RecordReader(path)
    identities, images, _ = rows_of(reader)
    assert (identities, list(images)) == ([record.identity for record in reader], [record.jpeg for record in reader])


def test_what_cannot_be_read_is_told_as_for_one_image(tmp_path: Path) -> None:
    path = write_images(tmp_path, PLAIN)
    reader = RecordReader(path)
    offset = reader.shards[0].offsets[4]
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * 4)  # the magic number of image 4
    with pytest.raises(BadRecordError, match="record 5: no RecordIO record") as caught:
        rows_of(reader)
    assert caught.value.reason == "bad_record"
    os.truncate(path, offset)
    with pytest.raises(BadRecordError, match="truncated"):
        rows_of(reader)
    reader.close()
    with pytest.raises(BadRecordError, match="cannot be read") as caught:
        rows_of(reader)
    assert caught.value.reason == "io_error"


def test_a_record_that_announces_half_a_gigabyte_gets_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_images(tmp_path, PLAIN)
    reader = RecordReader(path)
    with path.open("r+b") as stream:
        stream.seek(reader.shards[0].offsets[4] + 4)
        stream.write((row_reading._MAX_ROW + 500).to_bytes(4, "little"))
    tried: list[int] = []
    read = row_reading._read
    monkeypatch.setattr(row_reading, "_read", lambda *given: tried.append(given[-1]) or read(*given))
    assert reader.read_rows(np.arange(9), b"\0") is None
    assert len(tried) == 1 and tried[0] < 2000


def test_sizes_of_rows_are_those_of_their_images(tmp_path: Path) -> None:
    jpegs = [*PLAIN, picture(1, 40), picture(2, kind="PNG"), picture(3, quality=30)]
    _, images, _ = rows_of(RecordReader(write_images(tmp_path, jpegs)), header_of(PLAIN[0]))
    expected = [jpeg_size(jpeg) != (SIZE, SIZE) for jpeg in jpegs]
    assert images.other_size(SIZE).tolist() == other_size(jpegs, SIZE).tolist() == expected
    assert images.other_size(40).tolist() == [jpeg_size(jpeg) != (40, 40) for jpeg in jpegs]
    assert not images.all_jpeg


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("kind", ["alike", "mixed", "damaged", "augmented"])
def test_batches_are_the_same_with_and_without_it(
    tmp_path: Path, decoder: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jpegs = [picture(number) for number in range(23)]
    if kind != "alike":
        jpegs[3], jpegs[9] = picture(3, quality=40), picture(9, 40, 36, progressive=True)
    if kind == "mixed":
        jpegs[14] = picture(14, kind="PNG")
    if kind == "damaged":
        for place, (damage, _) in zip((2, 8, 11, 17, 20), DAMAGES.values(), strict=True):
            jpegs[place] = damage(jpegs[place])
    path = write_images(tmp_path, jpegs)
    augmentation = Augmentation(crop=0.5, down_up=0.3, blur=0.3, color=0.5) if kind == "augmented" else None

    def run() -> tuple[list[Any], int]:
        loader = make_loader(
            path, batch_size=5, image_size=SIZE, drop_last=False, decoder=decoder, bad_images="skip",
            max_bad_images=9, augmentation=augmentation,
        )  # fmt: skip
        return [batch for _ in range(2) for batch in loader], loader.bad_images.known

    compiled, known = run()
    assert known == (5 if kind == "damaged" else 0)
    monkeypatch.setattr(native_library, "available", lambda: False)
    plain, plain_known = run()
    assert plain_known == known
    for left, right in zip(compiled, plain, strict=True):
        assert torch.equal(left.indices, right.indices)
        assert torch.equal(left.identities, right.identities)
        assert torch.equal(left.images, right.images)
