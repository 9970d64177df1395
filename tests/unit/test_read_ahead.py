"""Order "blocks" on real files: the kernel is asked for whole blocks, in time, and every read falls into them."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline import RecordReader, RecordWriter, make_loader, native_library
from data_pipeline.blocks import BlockOrder, BlockShape
from data_pipeline.record_shard import RecordShard

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system has no posix_fadvise"),
]

IMAGES, BLOCK, WINDOW, BATCH = 1003, 20, 6, 30


class Disk:
    """What is asked of the files, in order: ("advise" or "read", path, first byte, byte behind the last)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, str, int, int]] = []
        advise, read = os.posix_fadvise, os.pread

        def posix_fadvise(descriptor: int, offset: int, length: int, advice: int) -> None:
            assert advice == os.POSIX_FADV_WILLNEED
            self._note("advise", descriptor, offset, length)
            advise(descriptor, offset, length, advice)

        def pread(descriptor: int, length: int, offset: int) -> bytes:
            self._note("read", descriptor, offset, length)
            return read(descriptor, length, offset)

        monkeypatch.setattr(os, "posix_fadvise", posix_fadvise)
        monkeypatch.setattr(os, "pread", pread)
        monkeypatch.setattr(native_library, "available", lambda: False)  # the compiled reader asks the kernel itself

    def _note(self, kind: str, descriptor: int, offset: int, length: int) -> None:
        self.log.append((kind, str(Path(f"/proc/self/fd/{descriptor}").readlink()), offset, offset + length))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two shards of JPEGs that are mostly comment, up to 30,000 bytes long."""
    folder = tmp_path_factory.mktemp("records")
    random = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    jpeg = buffer.getvalue()
    paths = [folder / "a.rec", folder / "b.rec"]
    for path, share in zip(paths, (400, IMAGES - 400), strict=True):
        with RecordWriter(path) as writer:
            for number in range(share):
                comment = bytes(int(random.integers(1, 30_000)))
                writer.write(
                    number, jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]
                )
    return paths


def stretches(reader: RecordReader, images: range) -> list[tuple[str, int, int]]:
    """Where images lie: (path, first byte, byte behind the last) a shard."""
    found = []
    for shard, first in zip(reader.shards, (0, 400), strict=True):
        own = [image - first for image in images if first <= image < first + len(shard)]
        if own:
            stop = shard._file.end(int(shard.offsets[own[-1]]), "")
            found.append((str(shard.path), int(shard.offsets[own[0]]), stop))
    return found


def covered(log: list[tuple[str, str, int, int]], stretch: tuple[str, int, int]) -> bool:
    path, start, stop = stretch
    asked = sorted((a, b) for kind, where, a, b in log if kind == "advise" and where == path)
    for a, b in asked:
        if a <= start < b:
            start = b
    return start >= stop


# A batch may also be larger than a window: 30 images of 20.
@pytest.mark.parametrize(("start_batch", "block", "window"), [(0, 20, 6), (17, 20, 6), (0, 10, 2), (3, 300, 1)])
def test_blocks_are_asked_for_before_their_images_are_read(
    files: list[Path], start_batch: int, block: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = RecordReader(files)
    loader = make_loader(
        reader, batch_size=BATCH, seed=4, order="blocks", block_images=block, window_blocks=window, decoder="cpu"
    )
    order = BlockOrder(IMAGES, 4, 0, BlockShape(block, window))
    position = loader._position
    everything = stretches(reader, range(IMAGES))
    blocks = order.blocks_at(np.arange(order.num_blocks)).tolist()
    lying = [stretches(reader, order.images_of(number)) for number in blocks]
    disk = Disk(monkeypatch)
    for number in range(start_batch, len(loader)):
        before = len(disk.log)
        batch = loader._read(number, position)
        now = disk.log[before:]
        reads = [entry for entry in now if entry[0] == "read"]
        assert now[len(now) - len(reads) :] == reads, "asked first, then read"
        # The windows in use have been asked for as a whole, and nothing beyond the next one.
        windows = order.window_at(np.array([number * BATCH, (number + 1) * BATCH - 1]))
        first, last = int(windows[0]) * window, (int(windows[1]) + 1) * window
        assert all(covered(disk.log, stretch) for each in lying[first:last] for stretch in each)
        allowed = [stretch for each in lying[first : last + window] for stretch in each]
        for _, path, a, b in now:
            assert any(path == where and start <= a < b <= stop for where, start, stop in allowed)
        assert len(reads) == len(batch.indices)
    asked = [entry[1:] for entry in disk.log if entry[0] == "advise"]
    assert len(asked) == len(set(asked)), "no stretch is asked for twice"
    if start_batch == 0:
        assert sum(b - a for _, a, b in asked) == sum(stop - start for _, start, stop in everything), "all of it"


def test_the_next_window_is_asked_for_bit_by_bit(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loader = make_loader(
        files, batch_size=BATCH, order="blocks", block_images=BLOCK, window_blocks=WINDOW, decoder="cpu"
    )
    disk = Disk(monkeypatch)
    position = loader._position
    asked = []
    for number in range(len(loader)):
        before = len(disk.log)
        loader._read(number, position)
        asked.append(sum(b - a for kind, _, a, b in disk.log[before:] if kind == "advise"))
    window_bytes = BLOCK * WINDOW * 15_000
    assert asked[0] > window_bytes / 2, "the first window at once"
    assert max(asked[1:]) < window_bytes / 2, "then evenly"


def test_going_back_asks_again(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loader = make_loader(files, batch_size=BATCH, order="blocks", block_images=500, window_blocks=1, decoder="cpu")
    disk = Disk(monkeypatch)
    for _ in range(2):
        disk.log.clear()
        for number in range(3):
            loader._read(number, loader._position)
        assert any(kind == "advise" for kind, *_ in disk.log)


def test_other_orders_ask_for_nothing(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    for order in ("global", "sequential"):
        loader = make_loader(files, batch_size=BATCH, order=order, decoder="cpu")
        loader._read(0, loader._position)
    assert {entry[0] for entry in disk.log} == {"read"}


def test_keys_out_of_file_order_are_asked_for_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordWriter(tmp_path / "train.rec") as writer:
        for number in range(500):
            writer.write(number, bytes(10_000))
    index = tmp_path / "train.idx"
    offsets = [line.split("\t")[1] for line in index.read_text().splitlines()]
    # Record 0 is the header, 1 to 500 the images; behind them the identities' ranges.
    offsets[1:501] = np.random.default_rng(1).permutation(offsets[1:501]).tolist()
    index.write_text("".join(f"{key}\t{offset}\n" for key, offset in enumerate(offsets)))
    shard = RecordShard(tmp_path / "train.rec")
    disk = Disk(monkeypatch)
    shard.will_need(0, 3)
    for place in range(3):
        offset = int(shard.offsets[place])
        assert covered(disk.log, (str(shard.path), offset, offset + 10_000))
    assert sum(b - a for _, _, a, b in disk.log) < 3 * (1 << 20) + 40_000
    shard.will_need(7, 7)


def test_without_the_hint_everything_is_read_all_the_same(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EINVAL, "not here")

    loader = make_loader(files, batch_size=BATCH, order="blocks", block_images=BLOCK, decoder="cpu")
    usual = loader._read(0, loader._position)
    monkeypatch.setattr(os, "posix_fadvise", refuse)
    loader = make_loader(files, batch_size=BATCH, order="blocks", block_images=BLOCK, decoder="cpu")
    assert list(loader._read(0, loader._position).jpegs) == list(usual.jpegs)
    monkeypatch.delattr(os, "posix_fadvise")
    assert loader._read(1, loader._position).jpegs
