"""``pfc data verify`` finds every bad record, wherever the chunks are cut, and says what is wrong and where."""

import argparse
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from damaged_images import SIZE, broken_tables, picture, without_end_marker, write_images, write_with_bad

from data_pipeline import DataError, Properties, RecordReader, RecordWriter, write_properties
from data_pipeline import verify as verify_module
from data_pipeline.index import load_index
from data_pipeline.record import pack_header
from data_pipeline.recordio import MAGIC_BYTES, frame
from data_pipeline.verify_ranges import RangeCheck
from data_pipeline.verify_report import LISTED, BadRecord, VerifyReport
from trainer.commands import data
from trainer.errors import ConfigError, ExitCode

pytestmark = pytest.mark.unit

NUM_IMAGES = 31


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_with_bad(tmp_path_factory.mktemp("sound"), NUM_IMAGES, {})


@pytest.fixture
def records(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound.parent, tmp_path / "copy")) / "train.rec"


@pytest.fixture(params=[1 << 22, 4096, 1004])  # whole, some records a chunk, less than a record
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "CHUNK_BYTES", request.param)


def check(path: Path, **settings: object) -> VerifyReport:
    return verify_module.verify([path], **settings)  # type: ignore[no-any-return]


def offset_of(path: Path, key: int) -> int:
    index = load_index(path, path.stat().st_size)
    return int(index.offsets[index.place_of(key)])


def overwrite(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(content)


def found(report: VerifyReport) -> list[tuple[int | None, str]]:
    return [(bad.key, bad.reason) for bad in report.bad]


def test_sound_data_are_all_good(sound: Path, chunked: None) -> None:
    report = check(sound, image_size=SIZE)
    assert report.bad == []
    assert report.as_dict()["totals"] | {"seconds": 0} == {
        "shards": 1, "bytes": sound.stat().st_size, "records": 1 + NUM_IMAGES + 16, "images": NUM_IMAGES,
        "bad": 0, "seconds": 0,
    }  # fmt: skip
    assert report.sizes == {(SIZE, SIZE): NUM_IMAGES}


def test_every_bad_image_is_found(tmp_path: Path, chunked: None) -> None:
    def cut_scan(jpeg: bytes) -> bytes:
        return jpeg[:-120] + b"\xff\xd9"  # decoders fill it up with grey

    odd = {
        2: (without_end_marker(picture(2)), "truncated"),
        3: (cut_scan(picture(3)), "truncated"),
        9: (broken_tables(picture(9)), "undecodable"),
        17: (b"GIF89a", "undecodable"),
        18: (picture(18, 20, 40), "wrong_size"),
        30: (picture(30, kind="PNG")[:-20], "truncated"),
    }
    path = write_images(tmp_path, [odd[n][0] if n in odd else picture(n) for n in range(NUM_IMAGES)])
    report = check(path, image_size=SIZE)
    assert found(report) == [(n + 1, reason) for n, (_, reason) in odd.items()]
    assert [bad.offset for bad in report.bad] == [offset_of(path, n + 1) for n in odd]
    assert found(check(path)) == [(n + 1, reason) for n, (_, reason) in odd.items() if n != 18]


def broken_magic(path: Path) -> None:
    overwrite(path, offset_of(path, 7), b"\0")


def broken_length(path: Path) -> None:
    overwrite(path, offset_of(path, 7) + 5, b"\x20")  # runs over the records behind it


def broken_flag(path: Path) -> None:
    overwrite(path, offset_of(path, 7) + 7, b"\x40")  # a middle part without a first one


def broken_label(path: Path) -> None:
    overwrite(path, offset_of(path, 7) + 12, struct.pack("<f", 1.5))


def endless_labels(path: Path) -> None:
    overwrite(path, offset_of(path, 7) + 8, b"\xff\xff\xff\xff")


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (broken_magic, "bad_record"), (broken_length, "bad_record"), (broken_flag, "bad_record"),
    (broken_label, "bad_record"), (endless_labels, "bad_record"),
]  # fmt: skip


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES])
def test_one_damaged_record_is_one_finding(records: Path, chunked: None, damage: Callable[[Path], None]) -> None:
    damage(records)
    report = check(records)
    assert found(report) == [(7, "bad_record")]
    assert report.bad[0].offset == offset_of(records, 7)
    assert report.shards[0].images == NUM_IMAGES - (damage not in (broken_label,))


def test_a_shard_that_ends_early(records: Path, chunked: None) -> None:
    os.truncate(records, offset_of(records, 20) + 100)
    report = check(records)
    assert (20, "truncated") in found(report)
    missing = [key for key, reason in found(report) if reason == "no_record"]
    assert missing == [*range(21, NUM_IMAGES + 1), *range(NUM_IMAGES + 1, NUM_IMAGES + 17)]
    assert report.shards[0].images == 19


def test_bytes_that_are_no_records(records: Path, chunked: None) -> None:
    content, end = records.read_bytes(), records.stat().st_size
    at = offset_of(records, 7)
    records.write_bytes(content[:at] + bytes(512) + content[at:] + bytes(64))
    lines = [line.split("\t") for line in records.with_suffix(".idx").read_text().splitlines()]
    moved = [f"{key}\t{int(offset) + 512 * (int(offset) >= at)}\n" for key, offset in lines]
    records.with_suffix(".idx").write_text("".join(moved))
    report = check(records)
    assert [(bad.offset, bad.reason) for bad in report.bad] == [(at, "bad_record"), (end + 512, "truncated")]
    assert "512 bytes hold no record" in report.bad[0].message


def test_the_index_is_compared_with_the_file(records: Path, chunked: None) -> None:
    index = records.with_suffix(".idx")
    lines = index.read_text().splitlines()
    lines[5] = lines[5].split("\t")[0] + "\t" + str(offset_of(records, 5) + 8)  # inside a record
    lines[9] = "3\t" + lines[9].split("\t")[1]  # a key twice
    lines.append(f"900\t{offset_of(records, 12)}")  # a record twice
    lines.append("901\t99999996")
    lines.append("what?")
    del lines[15]
    index.write_text("\n".join(lines))
    report = check(records)
    assert sorted(found(report), key=str) == sorted(
        [
            (None, "unreadable_index"), (901, "no_record"), (900, "duplicate_offset"), (3, "duplicate_key"),
            (5, "no_record"), (None, "not_in_index"), (None, "not_in_index"),
        ],
        key=str,
    )  # fmt: skip


def test_without_an_index_the_records_are_checked_alone(records: Path) -> None:
    records.with_suffix(".idx").unlink()
    overwrite(records, 2000, bytes(64))
    report = check(records)
    assert report.num_bad == 1
    assert not report.shards[0].has_index


def test_ranges_and_properties_that_contradict_the_images(records: Path, chunked: None) -> None:
    first = NUM_IMAGES + 1
    at = offset_of(records, first + 3)
    overwrite(records, at, frame(pack_header((7.0, 10.0), first + 3)))  # [7, 9) is the truth
    write_properties(records.parent, Properties(15, SIZE, SIZE))
    report = check(records)
    assert found(report) == [(NUM_IMAGES, "bad_record"), (first + 3, "bad_range")]
    assert "identity 15" in report.bad[0].message
    overwrite(records, 0, frame(pack_header((20.0, 40.0), 0)))
    assert (0, "bad_range") in found(check(records))


@pytest.mark.parametrize("key", [1 << 63, (1 << 64) - 1])
def test_a_key_beyond_int64_in_a_header_is_no_crash(records: Path, key: int) -> None:
    """Found by fuzzing: OverflowError, where the index does not name the record."""
    overwrite(records, offset_of(records, 7) + 16, struct.pack("<Q", key))
    records.with_suffix(".idx").unlink()
    assert check(records).shards[0].images == NUM_IMAGES


RUNS = [(1, 0), (2, 0), (3, 0), (4, 1), (5, 2), (6, 2)]  # key, identity
RANGES = [(7, 1, 4), (8, 4, 5), (9, 5, 7)]  # key, labels


def test_the_largest_key_in_an_index_is_no_crash(records: Path) -> None:
    """Found by fuzzing: OverflowError at the key behind it."""
    index = records.with_suffix(".idx")
    index.write_text(index.read_text().replace("7\t", f"{(1 << 63) - 1}\t", 1))
    assert check(records).shards[0].images == NUM_IMAGES


@pytest.mark.parametrize(
    ("images", "header", "ranges", "wrong"),
    [
        (RUNS, (7, 10), RANGES, []),
        (RUNS[::-1], (7, 10), RANGES, []),  # the order of the file is not that of the keys
        ([(1, 0), (3, 0), (4, -1), (5, 2), (6, 2)], (7, 10), RANGES, []),  # damaged records contradict nothing
        (RUNS, (7, 10), [(7, 1, 3), *RANGES[1:]], [7]),
        (RUNS, (7, 10), [(7, 1, 5), *RANGES[1:]], [7]),
        (RUNS, (7, 10), [RANGES[0], (8, 5, 4), RANGES[2]], [8, 0]),
        (RUNS, (7, 10), [*RANGES[:2], (9, float("nan"), 7)], [9, 0]),
        (RUNS, (7, 10), RANGES[:2], [0, 0]),  # neither are they as many as announced, nor is identity 2 in one
        (RUNS, (6, 9), RANGES, [0]),
        (RUNS, (float("nan"), 9), RANGES, [0]),
        (RUNS, (2.0**24, 2.0**24 + 6), RANGES, []),  # not exact: left alone
        (RUNS, (7, 7), [], []),
    ],
)
def test_range_records_are_compared_with_the_images(
    images: list[tuple[int, int]], header: tuple[float, float], ranges: list[tuple[int, float, float]], wrong: list[int]
) -> None:
    check = RangeCheck()
    check.add_header(0, 0, float(header[0]), float(header[1]))
    for key, identity in images:
        check.add_image(key, identity)
    for key, first, end in ranges:
        check.add_header(key * 100, key, float(first), float(end))
    assert [key for key, _, _ in check.findings()] == wrong


def test_records_that_hold_the_magic_number_are_whole(tmp_path: Path, chunked: None) -> None:
    jpegs = [picture(n, comment=b"x" * (n % 4) + MAGIC_BYTES * 5 + bytes(900)) for n in range(9)]
    report = check(write_images(tmp_path, jpegs))
    assert report.bad == []
    assert report.shards[0].images == 9


def test_plain_files_and_large_records(tmp_path: Path, chunked: None) -> None:
    images = [picture(0, comment=b"y" * 50_000), picture(1), picture(2)]
    contents = [pack_header((3.0,), 0) + images[0], pack_header((4.0, 0.5), 1) + images[1], pack_header((1.0,), 2)]
    path = tmp_path / "plain.rec"
    path.write_bytes(b"".join(map(frame, contents)))
    report = check(path)
    assert [(bad.offset, bad.reason) for bad in report.bad] == [(sum(len(frame(c)) for c in contents[:2]), "empty")]
    assert report.shards[0].layout == "plain"


def test_several_processes_find_the_same(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for damage in (broken_length, broken_label):
        damage(records)
    monkeypatch.setattr(verify_module, "CHUNK_BYTES", 5000)
    alone, together = check(records), check(records, workers=2)
    assert alone.bad == together.bad != []
    assert alone.as_dict() | {"totals": 0} == together.as_dict() | {"totals": 0}


def test_a_disk_that_fails_is_found_in_its_place(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data_pipeline.recordio import RecordFile

    memory = os.open("/proc/self/mem", os.O_RDONLY)  # fails with EIO where no memory is mapped
    opened = RecordFile.__init__

    def on_bad_disk(file: RecordFile, path: Path) -> None:
        opened(file, path)
        os.dup2(memory, file._descriptor)

    from data_pipeline import verify_chunk

    class BadDisk(RecordFile):
        __init__ = on_bad_disk

    monkeypatch.setattr(verify_chunk, "RecordFile", BadDisk)
    report = check(records)
    os.close(memory)
    assert report.counts["io_error"] >= 1
    assert any("Input/output error" in bad.message for bad in report.bad)


def test_millions_of_bad_records_are_counted_but_not_listed() -> None:
    report = VerifyReport()
    report.shards.append(verify_module.ShardReport("a.rec", 1))
    for number in range(LISTED + 7):
        report.add(BadRecord("a.rec", number, number, "empty", ""))
    entries = report.as_dict()
    assert (len(entries["bad"]), entries["unlisted"], entries["totals"]["bad"]) == (LISTED, 7, LISTED + 7)


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    data.add_parser(parser.add_subparsers(required=True))
    args = parser.parse_args(["data", "verify", *map(str, words)])
    return int(args.handler(args))


def test_the_command_reports_and_exits(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    assert command(records.parent, "--workers", 1, "--report", report) == ExitCode.DONE
    assert "all good" in capsys.readouterr().out
    broken_label(records)
    assert command(records, "--workers", 1, "--report", report) == ExitCode.FAILURE
    printed = capsys.readouterr()
    assert "record 7 at byte" in printed.out
    assert printed.err == ""  # no bar where stderr is no terminal
    entry = json.loads(report.read_text())["bad"]
    assert [(each["key"], each["reason"]) for each in entry] == [(7, "bad_record")]
    os.mkfifo(tmp_path / "fifo")  # renaming a report over a device would replace it
    for words in ([records, "--report", tmp_path / "fifo"], [records, "--report", tmp_path]):
        with pytest.raises(ConfigError, match="--report"):
            command(*words)
    for words in ([tmp_path / "absent"], [records, "--workers", 0], [records, "--report", tmp_path / "no" / "r.json"]):
        with pytest.raises(ValueError, match=r"absent|workers 0|--report"):
            command(*words)
    (tmp_path / "empty.rec").touch()
    with pytest.raises(DataError, match="empty"):
        command(tmp_path / "empty.rec")


def test_what_verify_calls_good_is_read(sound: Path) -> None:
    assert check(sound).num_bad == 0
    assert len(list(RecordReader(sound))) == NUM_IMAGES


def test_a_writer_of_unsorted_identities_is_good(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "a.rec") as writer:
        for identity in (5, 2, 5, 2**41):
            writer.write(identity, picture(identity % 7))
    assert check(tmp_path / "a.rec").bad == []
