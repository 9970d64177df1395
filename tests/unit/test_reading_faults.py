"""Records that cannot be read: cut files, damaged framing and labels, empty payloads, a disk that fails."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from damaged_images import SIZE, write_with_bad

from data_pipeline import DataError, RecordReader, check_identities, make_loader
from data_pipeline.errors import BadRecordError
from data_pipeline.record import pack_image
from data_pipeline.recordio import frame

pytestmark = pytest.mark.unit

NUM_IMAGES, VICTIM = 23, 14


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_with_bad(tmp_path_factory.mktemp("sound"), NUM_IMAGES, {})


@pytest.fixture
def records(sound: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(sound.parent, tmp_path / "copy")) / "train.rec"


def place_of(reader: RecordReader, index: int) -> int:
    return int(reader.shards[0].offsets[index])


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(content)


def break_magic(path: Path, at: int) -> None:
    overwrite(path, at, b"\0\0\0\0")


def break_label(path: Path, at: int) -> None:
    overwrite(path, at + 12, b"\0\0\xc0\x7f")  # NaN


def empty_payload(path: Path, at: int) -> None:
    overwrite(path, at, frame(pack_image(7, VICTIM + 1, b"")))


def too_long(path: Path, at: int) -> None:
    overwrite(path, at + 4, b"\xff\xff\xff\x1f")


DAMAGES: list[tuple[Callable[[Path, int], None], str]] = [
    (break_magic, "bad_record"), (break_label, "bad_record"), (empty_payload, "empty"), (too_long, "truncated"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_record_is_raised_or_skipped(records: Path, damage: Callable[..., None], reason: str) -> None:
    reader = RecordReader(records)
    damage(records, place_of(reader, VICTIM))
    settings = {"batch_size": 5, "decoder": "cpu", "image_size": SIZE, "drop_last": False}
    with pytest.raises(BadRecordError, match=rf"train\.rec.*record {VICTIM + 1}") as caught:
        list(make_loader(reader, **settings))
    assert caught.value.reason == reason
    loader = make_loader(reader, bad_images="skip", **settings)
    indices = torch.cat([batch.indices for batch in loader])
    assert len(indices) == NUM_IMAGES
    assert VICTIM not in indices
    assert dict(loader.skipped) == {reason: 1}


def test_a_shard_cut_before_it_is_opened_is_refused(records: Path) -> None:
    os.truncate(records, records.stat().st_size * 2 // 3)
    with pytest.raises(DataError, match=r"truncated|ends at byte"):
        RecordReader(records)


def test_a_shard_cut_before_it_is_opened_can_be_trained_on(records: Path) -> None:
    os.truncate(records, place_of(RecordReader(records), VICTIM) + 100)
    settings = {"batch_size": 5, "decoder": "cpu", "image_size": SIZE, "bad_images": "skip"}
    loader = make_loader(records, max_bad_images=NUM_IMAGES - VICTIM, **settings)
    assert len(loader.reader) == NUM_IMAGES
    assert loader.reader.identities.tolist() == [n // 2 for n in range(VICTIM + 1)] + [-1] * (NUM_IMAGES - VICTIM - 1)
    check_identities(loader.reader, 12)
    with pytest.raises(DataError, match="outside"):
        check_identities(loader.reader, 7)
    for _ in range(3):
        assert all((batch.indices < VICTIM).all() and (batch.identities >= 0).all() for batch in loader)
    assert loader.skipped.keys() == {"truncated"}
    with pytest.raises(DataError, match=r"are more than max_bad_images"):
        list(make_loader(records, max_bad_images=2, **settings))


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("index", ["0\t0\n", "1\t0\n2\t40\n"])
def test_a_file_too_short_for_any_record_is_refused_in_any_case(tmp_path: Path, size: int, index: str) -> None:
    """Found by fuzzing: IndexError where bad records are skipped."""
    (tmp_path / "a.rec").write_bytes(bytes(size))
    (tmp_path / "a.idx").write_text(index)
    for skip_bad in (False, True):
        with pytest.raises(DataError, match=r"a\.rec"):
            RecordReader(tmp_path / "a.rec", skip_bad=skip_bad)


def test_a_damaged_label_has_no_identity_where_bad_records_are_skipped(records: Path) -> None:
    break_label(records, place_of(RecordReader(records), VICTIM))
    assert RecordReader(records, skip_bad=True).identities[VICTIM - 1 : VICTIM + 2].tolist() == [6, -1, 7]
    with pytest.raises(BadRecordError, match="label nan"):
        _ = RecordReader(records).identities


def test_a_signalling_nan_as_label_is_a_typed_error(records: Path) -> None:
    """Found by fuzzing: NumPy warned of an invalid cast, which is an exception where warnings are errors."""
    overwrite(records, place_of(RecordReader(records), VICTIM) + 12, b"\x01\0\xa0\x7f")
    with pytest.raises(BadRecordError, match="label nan"):
        _ = RecordReader(records).identities
    assert RecordReader(records, skip_bad=True).identities[VICTIM] == -1


def test_a_shard_cut_after_it_was_opened(records: Path) -> None:
    reader = RecordReader(records)
    end = place_of(reader, VICTIM) + 100  # in the middle of an image
    os.truncate(records, end)
    reasons = {}
    for index in range(NUM_IMAGES):
        try:
            reader[index]
        except BadRecordError as error:
            reasons[index] = error.reason
            assert f"record {index + 1} needs" in str(error)
            assert f"the file ends at byte {end}" in str(error)
    assert reasons == dict.fromkeys(range(VICTIM, NUM_IMAGES), "truncated")
    loader = make_loader(reader, batch_size=5, decoder="cpu", image_size=SIZE, bad_images="skip", max_bad_images=0.5)
    assert max(torch.cat([batch.indices for batch in loader]).tolist()) < VICTIM
    assert loader.skipped["truncated"] >= 6
    strict = make_loader(reader, batch_size=5, decoder="cpu", image_size=SIZE, bad_images="skip", max_bad_images=3)
    with pytest.raises(DataError, match=r"4 bad images \(4 truncated\)"):
        list(strict)


def test_reading_identities_of_a_shard_cut_meanwhile_is_an_error_not_a_crash(records: Path) -> None:
    reader = RecordReader(records)
    os.truncate(records, 4000)
    with pytest.raises(DataError, match=r"train\.rec"):
        _ = reader.identities


def test_a_failing_disk_is_a_typed_error_with_place_and_cause(records: Path) -> None:
    reader = RecordReader(records)
    # /proc/self/mem read at an address that is not mapped fails with EIO, as a broken disk does.
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    os.dup2(memory, reader.shards[0]._file._descriptor)
    os.close(memory)
    with pytest.raises(BadRecordError, match=rf"train\.rec: record {VICTIM + 1}: \d+ bytes at byte \d+ .*Input/output"):
        reader[VICTIM]
    settings = {"batch_size": 5, "decoder": "cpu", "image_size": SIZE, "bad_images": "skip"}
    with pytest.raises(DataError, match=r"11 bad images \(11 io_error\) are more than max_bad_images"):
        list(make_loader(reader, **settings))


def test_a_closed_reader_and_one_bad_disk_of_two(records: Path, sound: Path) -> None:
    both = RecordReader([sound, records])
    both.shards[1].close()
    with pytest.raises(BadRecordError, match="Bad file descriptor") as caught:
        both[NUM_IMAGES]
    assert caught.value.reason == "io_error"
    loader = make_loader(
        both, batch_size=5, decoder="cpu", image_size=SIZE, bad_images="skip", max_bad_images=NUM_IMAGES
    )
    assert max(torch.cat([batch.indices for batch in loader]).tolist()) < NUM_IMAGES
    assert set(loader.skipped) == {"io_error"}


def test_an_error_survives_pickling() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(BadRecordError("empty", "a message")))
    assert (error.reason, str(error)) == ("empty", "a message")
