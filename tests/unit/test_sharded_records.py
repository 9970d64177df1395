"""Data sets of several record shards: where they are cut, how they are read, and what is no whole data set."""

import errno
import os
import resource
from pathlib import Path

import pytest

from data_pipeline import DataError, RecordReader, RecordWriter
from data_pipeline.record_set import find_records, is_own_name, shard_name, training_records
from data_pipeline.shard_cut import ShardCut
from data_pipeline.sharded_writer import ShardedMark, ShardedWriter
from data_pipeline.summary import summarize
from trainer.config import DataConfig

pytestmark = pytest.mark.unit

IMAGES = [(number // 3, bytes([65 + number]) * (1 + 7 * number)) for number in range(23)]


def write(folder: Path, cut: ShardCut | None = None, images: list[tuple[int, bytes]] = IMAGES, **more: bool) -> Path:
    """A data set with its final names."""
    folder.mkdir()
    with ShardedWriter(folder, cut=cut, total=len(images), **more) as writer:
        for identity, jpeg in images:
            writer.write(identity, jpeg)
    for own, name in writer.names().items():
        (folder / own).rename(folder / name)
    for left in folder.glob("*.runs"):
        left.unlink()
    return folder


def read(records: Path | list[Path]) -> list[tuple[int, bytes]]:
    with RecordReader(records) as reader:
        assert reader.identities.tolist() == [record.identity for record in reader]
        return [tuple(record) for record in reader]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("cut", "sizes"),
    [
        (ShardCut(), [23]),
        (ShardCut(shards=1), [23]),
        (ShardCut(shards=4), [5, 6, 6, 6]),
        (ShardCut(shards=23), [1] * 23),
        (ShardCut(max_images=7), [7, 7, 7, 2]),
        (ShardCut(max_images=23), [23]),
        (ShardCut(max_images=1), [1] * 23),
        (ShardCut(max_bytes=1 << 20), [23]),
    ],
)
def test_cuts(tmp_path: Path, cut: ShardCut, sizes: list[int], plain: bool) -> None:
    folder = write(tmp_path / "out", cut, plain=plain)
    paths = find_records(folder)
    assert [path.name for path in paths] == [shard_name(number, len(sizes)) for number in range(len(sizes))]
    assert (folder / "dali.idx").exists() == (len(sizes) > 1)
    assert [len(RecordReader(path)) for path in paths] == sizes
    assert read(paths) == IMAGES
    assert training_records(folder) == DataConfig(records=folder).record_files() == paths
    assert {shard.layout for shard in RecordReader(paths).shards} == {"plain" if plain else "insightface"}


@pytest.mark.parametrize("plain", [False, True])
def test_a_shard_is_what_record_writer_writes(tmp_path: Path, plain: bool) -> None:
    folder = write(tmp_path / "out", ShardCut(shards=4), plain=plain)
    with RecordWriter(tmp_path / "alone.rec", plain=plain) as writer:
        for identity, jpeg in IMAGES[5:11]:
            writer.write(identity, jpeg)
    for suffix in (".rec", ".idx"):
        shard = folder / shard_name(1, 4)
        assert shard.with_suffix(suffix).read_bytes() == (tmp_path / f"alone{suffix}").read_bytes()


def test_bytes_bound_the_record_file(tmp_path: Path) -> None:
    limit = 1 << 16
    images = [(number, bytes([number]) * (3000 + 97 * number)) for number in range(100)] + [(100, b"x" * 70_000)]
    paths = find_records(write(tmp_path / "out", ShardCut(max_bytes=limit), images))
    sizes = [path.stat().st_size for path in paths]
    assert max(sizes[:-1]) <= limit
    assert min(sizes[:-2]) > limit - 3000 - 97 * 100 - 200, "no shard is cut before it must"
    assert len(RecordReader(paths[-1])) == 1, "a larger image stands alone"
    assert read(paths) == images


@pytest.mark.parametrize("plain", [False, True])
def test_identities_are_exact_in_every_shard(tmp_path: Path, plain: bool) -> None:
    identities = [0, 2**24 - 1, 2**24, 2**24 + 1, 2**31 + 5, 2**44 - 1]
    images = [(identity, b"jpeg") for identity in identities]
    paths = find_records(write(tmp_path / "out", ShardCut(max_images=2), images, plain=plain))
    assert [[record.identity for record in RecordReader(path)] for path in paths] == [
        identities[:2], identities[2:4], identities[4:],
    ]  # fmt: skip
    assert read(paths) == images
    assert RecordReader(paths).num_identities == 2**44


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("cut", [ShardCut(), ShardCut(shards=3), ShardCut(max_images=4)])
def test_another_writer_continues_at_any_mark(tmp_path: Path, cut: ShardCut, plain: bool) -> None:
    whole = write(tmp_path / "whole", cut, plain=plain)
    (tmp_path / "parts").mkdir()
    mark: ShardedMark | None = None
    for start in range(0, len(IMAGES), 2):
        writer = ShardedWriter(tmp_path / "parts", cut=cut, total=len(IMAGES), plain=plain, mark=mark)
        for identity, jpeg in IMAGES[start : start + 2]:
            writer.write(identity, jpeg)
        mark = writer.mark()
        for identity, jpeg in IMAGES[start : start + 9]:  # never to be seen again
            writer.write(identity + 1000, jpeg * 2)
        writer.discard()
    writer = ShardedWriter(tmp_path / "parts", cut=cut, total=len(IMAGES), plain=plain, mark=mark)
    for identity, jpeg in IMAGES[24:]:
        writer.write(identity, jpeg)
    writer.close()
    for own, name in writer.names().items():
        assert (tmp_path / "parts" / own).read_bytes() == (whole / name).read_bytes(), name


def test_an_incomplete_set_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", ShardCut(shards=4))
    lost = folder / shard_name(2, 4)
    content = lost.read_bytes()
    lost.unlink()
    for look in (find_records, training_records, lambda path: DataConfig(records=path).record_files()):
        with pytest.raises(DataError, match=r"holds 3 of 4 record shards \(train-00002-of-00004.rec is missing\)") as e:
            look(folder)
        assert "\n" not in str(e.value)
    assert len(RecordReader(folder / shard_name(0, 4))) == 5, "one shard is readable by itself"
    lost.write_bytes(content)
    (folder / "train.rec").touch()
    with pytest.raises(DataError, match=r"holds train.rec beside the shards of another data set"):
        find_records(folder)
    (folder / "train.rec").rename(folder / shard_name(4, 4))
    with pytest.raises(DataError, match=r"holds 5 of 4 record shards"):
        find_records(folder)
    (folder / shard_name(4, 4)).rename(folder / shard_name(0, 2))
    with pytest.raises(DataError, match=r"holds 1 of 2 record shards"):
        find_records(folder)


def test_a_name_that_promises_a_billion_shards_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-999999999999.rec").touch()
    with pytest.raises(DataError, match="holds 1 of 999999999999"):
        find_records(tmp_path)


def test_an_unfinished_data_set_is_named(tmp_path: Path) -> None:
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "0.rec").touch()
    with pytest.raises(DataError, match=r"holds no .rec file; an unfinished one lies in .*\.unfinished"):
        find_records(tmp_path)


def test_a_summary_counts_all_shards(tmp_path: Path) -> None:
    summary = summarize(RecordReader(find_records(write(tmp_path / "out", ShardCut(shards=3)))))
    assert (summary.num_images, summary.num_identities, len(summary.paths)) == (23, 8, 3)


def test_impossible_cuts_are_refused(tmp_path: Path) -> None:
    for wrong in ({"shards": 0}, {"max_images": 0}, {"max_bytes": 10}, {"shards": 2, "max_images": 3}):
        with pytest.raises(DataError):
            ShardCut(**wrong)
    with pytest.raises(DataError, match="ask for at most 23"):
        write(tmp_path / "out", ShardCut(shards=24))


def test_own_names() -> None:
    for name in ("train.rec", "train.idx", shard_name(3, 7), "train-00003-of-00007.idx", shard_name(123456, 200000)):
        assert is_own_name(name)
    for name in (
        "a.rec",
        "train.recs",
        "xtrain.rec",
        "val-00003-of-00007.rec",
        "train-3-of-7.rec",
        "train",
        "dali.idx",
    ):
        assert not is_own_name(name)


def test_a_full_disk_leaves_no_temporary_file(tmp_path: Path) -> None:
    """What is still in a buffer cannot be written when the file is dropped; that kept it from being removed, once."""
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            with RecordWriter(tmp_path / "train.rec") as writer:
                for number in range(10_000):
                    writer.write(number, b"jpeg" * 25)
        except OSError as error:
            os._exit(0 if error.errno == errno.EFBIG else 2)
        except BaseException:
            os._exit(3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []
