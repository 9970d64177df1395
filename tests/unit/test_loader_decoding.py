"""Both decoders give the same images, own them, and name the image that they cannot decode."""

import importlib
import importlib.util
import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline import DataError, Loader, RecordWriter, make_loader
from data_pipeline.decode_image import decode_image
from data_pipeline.image_size import jpeg_size

pytestmark = pytest.mark.unit

NUM_IMAGES, SIZE = 29, 32
LEVEL = 1 / 127.5  # one of the 256 grey levels
HAS_DALI = importlib.util.find_spec("nvidia.dali") is not None if importlib.util.find_spec("nvidia") else False
needs_dali = pytest.mark.skipif(not HAS_DALI, reason="DALI is not installed")
DECODERS = [pytest.param("dali", marks=needs_dali), "cpu"]


def encoded(seed: int, height: int = SIZE, width: int = SIZE, kind: str = "JPEG", **options: Any) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


def write(folder: Path, jpegs: list[bytes]) -> Path:
    with RecordWriter(folder / "train.rec") as writer:
        for number, jpeg in enumerate(jpegs):
            writer.write(number // 2, jpeg)
    return folder / "train.rec"


def loader_of(records: Path, **settings: Any) -> Loader:
    return make_loader(records, **{"batch_size": 7, "image_size": SIZE, "drop_last": False, **settings})


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("records"), [encoded(number) for number in range(NUM_IMAGES)])


@needs_dali
def test_both_decoders_agree_bit_for_bit(records: Path) -> None:
    for dali, pillow in zip(loader_of(records, decoder="dali"), loader_of(records, decoder="cpu"), strict=True):
        assert torch.equal(dali.indices, pillow.indices)
        assert torch.equal(dali.identities, pillow.identities)
        assert torch.equal(dali.images, pillow.images)


@needs_dali
def test_dali_is_bit_identical_from_run_to_run_and_at_any_split(records: Path) -> None:
    def images(rank: int, world_size: int, **settings: Any) -> list[torch.Tensor]:
        loader = loader_of(records, rank=rank, world_size=world_size, batch_size=6 // world_size, **settings)
        return [batch.images for batch in loader]

    alone = images(0, 1)
    parts = [images(rank, 3, prefetch=rank + 1, num_threads=2) for rank in range(3)]
    assert all(torch.equal(torch.cat(step), whole) for *step, whole in zip(*parts, alone, strict=True))


@pytest.mark.parametrize("decoder", DECODERS)
def test_batches_own_their_memory(records: Path, decoder: str) -> None:
    kept, copies = [], []
    loader = loader_of(records, decoder=decoder)
    for _ in range(3):
        for batch in loader:
            kept.append(batch.images)
            copies.append(batch.images.clone())
    del loader
    assert all(torch.equal(image, copy) for image, copy in zip(kept, copies, strict=True))
    kept[0].zero_()
    assert torch.equal(kept[1], copies[1])


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_abandoned_iteration_leaves_nothing_behind(records: Path, decoder: str) -> None:
    fresh = next(iter(loader_of(records, decoder=decoder)))
    loader = loader_of(records, decoder=decoder)
    for _ in range(3):
        abandoned = iter(loader)
        next(abandoned)
        next(abandoned)
        assert torch.equal(next(iter(loader)).images, fresh.images)


@pytest.mark.parametrize("decoder", DECODERS)
def test_other_sizes_and_formats_are_resized_and_disturb_nobody(tmp_path: Path, records: Path, decoder: str) -> None:
    odd = {3: encoded(3, 45, 70), 8: encoded(8, 20, 20), 9: encoded(9, kind="PNG")}
    mixed = write(tmp_path, [odd.get(number, encoded(number)) for number in range(NUM_IMAGES)])
    plain = {int(i): x for batch in loader_of(records, decoder=decoder) for i, x in zip(batch.indices, batch.images)}  # noqa: B905
    for batch in loader_of(mixed, decoder=decoder):
        for index, image in zip(batch.indices.tolist(), batch.images, strict=True):
            if index not in odd:
                assert torch.equal(image, plain[index])
            else:  # the same picture drawn at another size: alike, not equal
                assert (image - plain[index]).abs().mean() < 24 * LEVEL


@needs_dali
def test_both_decoders_turn_a_photo_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    path = write(tmp_path, [encoded(0, exif=exif), encoded(0)])
    turned, plain = (
        next(iter(loader_of(path, decoder=name, flip=False, order="sequential"))).images[0] for name in ("dali", "cpu")
    )
    assert torch.equal(turned, plain)
    upright = torch.from_numpy(decode_image(encoded(0)).copy()).permute(2, 0, 1)
    assert ((plain + 1) * 127.5 - upright.rot90(-1, (1, 2))).abs().max() < 0.01


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("bad", [b"\xff\xd8 not a JPEG at all", encoded(11)[:300], b"\0"])
def test_a_bad_image_is_named(tmp_path: Path, decoder: str, bad: bytes) -> None:
    path = write(tmp_path, [bad if number == 11 else encoded(number) for number in range(NUM_IMAGES)])
    loader = loader_of(path, decoder=decoder)
    pattern = r"image 11 \(identity 5; .*train\.rec, record 12 at byte \d+\) cannot be decoded: .*pack the data again"
    with pytest.raises(DataError, match=pattern) as caught:
        list(loader)
    assert "\n" not in str(caught.value)
    # What lies before it still comes, from the same loader.
    sequential = loader_of(path, decoder=decoder, order="sequential", batch_size=5, prefetch=1)
    for _ in range(2):
        iterator = iter(sequential)
        assert next(iterator).indices.tolist() == [0, 1, 2, 3, 4]
        with pytest.raises(DataError, match="image 11"):
            list(iterator)


def test_an_enormous_image_is_refused_before_it_is_decoded() -> None:
    bomb = bytearray(encoded(0, kind="BMP"))
    bomb[18:26] = (100_000).to_bytes(4, "little") * 2
    with pytest.raises(ValueError, match=r"pixels|limit|large"):
        decode_image(bytes(bomb))


def test_without_dali_the_message_names_the_extra(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "data_pipeline.decode_dali", raising=False)
    with pytest.raises(DataError, match=r"pip install 'pfc\[cuda13\]'.*decoder='cpu'"):
        loader_of(records, decoder="dali")
    assert len(list(loader_of(records, decoder="cpu"))) == 5


def test_packing_needs_neither_torch_nor_dali() -> None:
    code = "import sys, data_pipeline, data_pipeline.pack; print({'torch', 'nvidia.dali'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 20}, {"comment": b"x" * 3000}])
def test_the_size_of_a_jpeg_is_read_from_its_header(options: dict[str, Any]) -> None:
    jpeg = encoded(1, 37, 51, **options)
    assert jpeg_size(jpeg) == (37, 51)
    assert jpeg_size(jpeg[:160]) in (None, (37, 51))
    for cut in range(len(jpeg[:200])):
        jpeg_size(jpeg[:cut])  # never fails


def test_what_is_no_jpeg_has_no_size() -> None:
    assert jpeg_size(encoded(1, kind="PNG")) is None
    assert jpeg_size(b"\xff\xd8" + b"\xff" * 50) is None
    assert jpeg_size(b"\xff\xd8\xff\xe0\0\0" * 9) is None


def wait_for_rest() -> None:
    """Until all other threads of this process sleep: none works, none waits for a processor or a disk."""
    own, sleeping, deadline = threading.get_native_id(), 0, time.monotonic() + 60
    while sleeping < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
        states = [state for thread, state in thread_states() if thread != own]
        sleeping = sleeping + 1 if set(states) <= {"S"} else 0


def thread_states() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            yield int(folder.name), (folder / "stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's list of threads")
@pytest.mark.parametrize("decoder", DECODERS)
def test_batches_are_decoded_while_the_caller_is_busy(tmp_path: Path, decoder: str) -> None:
    """In seconds of processors, so on a busy machine, too: the last batches were decoded before they are asked for."""
    path = write(tmp_path, [encoded(number, 400, 400) for number in range(9 * 8)])
    used = []
    wait_for_rest()
    batches = iter(loader_of(path, decoder=decoder, batch_size=8, prefetch=2))
    for _ in range(9):
        start = time.process_time() - time.thread_time()
        next(batches)
        wait_for_rest()
        used.append(time.process_time() - time.thread_time() - start)
    decoding_one = sorted(used[1:7])[3]  # the batch two after the one that was asked for
    assert sum(used[7:]) < 0.5 * decoding_one
    assert used[0] > 1.5 * decoding_one  # of three batches
