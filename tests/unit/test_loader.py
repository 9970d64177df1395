"""The loader: order, ranks, position and its errors, with the decoder that needs no DALI."""

import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline import Batch, DataError, Loader, RecordReader, RecordWriter, make_loader
from data_pipeline.augmentation_draws import draw_flips
from data_pipeline.order import images_at

pytestmark = pytest.mark.unit

NUM_IMAGES, SIZE = 53, 16


def picture(seed: int, height: int = SIZE, width: int = SIZE) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "train.rec"
    with RecordWriter(path) as writer:
        for number in range(NUM_IMAGES):
            writer.write(2**40 + number // 3, encoded(picture(number)))
    return path


def loader_of(records: Path | RecordReader | list[Path], **settings: Any) -> Loader:
    return make_loader(records, **{"batch_size": 6, "seed": 5, "decoder": "cpu", "image_size": SIZE, **settings})


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a.images, b.images)
        and torch.equal(a.identities, b.identities)
        and torch.equal(a.indices, b.indices)
        for a, b in zip(left, right, strict=True)
    )


def joined(per_rank: list[list[Batch]]) -> list[Batch]:
    """The ranks' batches of each step put together."""
    return [
        Batch(*(torch.cat([getattr(batch, name) for batch in step]) for name in ("images", "identities", "indices")))
        for step in zip(*per_rank, strict=True)
    ]


def test_a_batch_is_what_the_contract_says(records: Path) -> None:
    batch = next(iter(loader_of(records)))
    assert batch.images.shape == (6, 3, SIZE, SIZE)
    assert batch.images.dtype == torch.float32
    assert -1 <= batch.images.min() < batch.images.max() <= 1
    assert batch.identities.dtype == batch.indices.dtype == torch.int64
    assert batch.identities.tolist() == [2**40 + index // 3 for index in batch.indices.tolist()]


def test_pixels_are_scaled_and_mirrored_as_the_order_says(records: Path) -> None:
    reader = RecordReader(records)
    seen = set()
    for batch in loader_of(reader):
        mirrored = draw_flips(0.5, batch.indices.numpy(), 5, 0)
        for image, index, flip in zip(batch.images, batch.indices.tolist(), mirrored, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(reader[index].jpeg)), dtype=np.float32)
            pixels = pixels[:, ::-1] if flip else pixels
            assert np.allclose(image.permute(1, 2, 0), (pixels - 127.5) / 127.5, atol=1e-6)
            seen.add(bool(flip))
    assert seen == {True, False}


def test_an_epoch_is_every_image_once_in_the_orders_order(records: Path) -> None:
    loader = loader_of(records, drop_last=False)
    assert len(loader) == 9
    indices = torch.cat([batch.indices for batch in loader])
    assert indices.tolist() == images_at(np.arange(NUM_IMAGES), NUM_IMAGES, 5, 0, "global").tolist()
    sequential = torch.cat([batch.indices for batch in loader_of(records, order="sequential")])
    assert sequential.tolist() == list(range(48))


def test_epochs_differ_and_come_back(records: Path) -> None:
    loader = loader_of(records)
    first = list(loader)
    second = list(loader)  # moves on by itself
    assert not same(first, second)
    loader.set_epoch(0)
    assert same(list(loader), first)
    assert loader.epoch == 1
    loader.set_epoch(1)
    assert same(list(loader), second)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world_size", [2, 3, 4, 12])
def test_any_number_of_ranks_gives_the_same_global_batches(records: Path, world_size: int, drop_last: bool) -> None:
    settings = {"drop_last": drop_last}
    alone = list(loader_of(records, batch_size=12, **settings))
    ranks = [
        list(loader_of(records, batch_size=12 // world_size, rank=rank, world_size=world_size, **settings))
        for rank in range(world_size)
    ]
    assert same(joined(ranks), alone)


def test_a_rank_without_images_still_takes_the_step(records: Path) -> None:
    # 53 images in global batches of 17 leave 2 for 17 ranks.
    loaders = [loader_of(records, batch_size=1, rank=rank, world_size=17, drop_last=False) for rank in range(17)]
    lasts = [list(loader)[-1] for loader in loaders]
    assert {len(loader) for loader in loaders} == {4}
    assert sum(len(batch.indices) for batch in lasts) == 2
    assert (0, 3, SIZE, SIZE) in {tuple(batch.images.shape) for batch in lasts}


@pytest.mark.parametrize("batches", [0, 1, 3, 4])
@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_a_loaded_position_continues_bit_for_bit_at_any_world_size(
    records: Path, batches: int, world_size: int
) -> None:
    original = loader_of(records, batch_size=12, drop_last=False)
    original.set_epoch(2)
    iterator = iter(original)
    for _ in range(batches):
        next(iterator)
    # Written and read as a checkpoint would: batches decoded ahead must not count.
    state = json.loads(json.dumps(original.state_dict()))
    assert state["samples"] == 12 * batches
    rest, following = list(iterator), list(original)
    ranks = []
    for rank in range(world_size):
        resumed = loader_of(records, batch_size=12 // world_size, rank=rank, world_size=world_size, drop_last=False)
        resumed.load_state_dict(state)
        resumed.set_epoch(2)  # resuming code may call it
        ranks.append((list(resumed), list(resumed)))
    assert same(joined([remaining for remaining, _ in ranks]), rest)
    assert same(joined([after for _, after in ranks]), following)


def test_after_the_last_batch_the_position_is_the_next_epoch(records: Path) -> None:
    loader = loader_of(records)
    for number, _ in enumerate(loader, start=1):
        state = loader.state_dict()
        assert (state["epoch"], state["samples"]) == ((0, 6 * number) if number < len(loader) else (1, 0))
    resumed = loader_of(records)
    resumed.load_state_dict(state)
    assert same(list(resumed), list(loader))


def test_a_new_iteration_starts_the_epoch_and_ends_the_old_one(records: Path) -> None:
    loader = loader_of(records)
    old = iter(loader)
    first = [next(old), next(old)]
    assert same(list(itertools.islice(loader, 2)), first)
    with pytest.raises(RuntimeError, match="this iteration has ended"):
        next(old)
    other = iter(loader)
    next(other)
    loader.set_epoch(3)
    with pytest.raises(RuntimeError, match="this iteration has ended"):
        next(other)
    assert loader.state_dict()["epoch"] == 3


def test_batches_stay_what_they_are(records: Path) -> None:
    loader = loader_of(records)
    kept, copies = [], []
    for batch in loader:
        kept.append(batch.images)
        copies.append(batch.images.clone())
    assert all(torch.equal(image, copy) for image, copy in zip(kept, copies, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 6}, "seed 5 but this loader has 6"),
        ({"batch_size": 7}, "global_batch 6 but this loader has 7"),
        ({"order": "sequential"}, "order 'global' but this loader has 'sequential'"),
    ],
)
def test_the_position_of_another_run_is_refused(records: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        loader_of(records, **change).load_state_dict(loader_of(records).state_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"samples": 7}, {"samples": -6}, {"samples": 54}, {"epoch": -1}, {"epoch": 1.5}, {"num_images": 52},
        {"version": 2}, {"extra": 1},
    ],
)  # fmt: skip
def test_a_damaged_position_is_refused(records: Path, change: dict[str, Any]) -> None:
    loader = loader_of(records)
    with pytest.raises(DataError) as caught:
        loader.load_state_dict({**loader.state_dict(), **change})
    assert "\n" not in str(caught.value)
    assert loader.state_dict()["samples"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 54}, r"global batch of 54 \(54 x 1 ranks\) is larger than the data set of 53 images"),
        ({"batch_size": 18, "world_size": 3}, r"global batch of 54 \(18 x 3 ranks\)"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 2, "world_size": 2}, r"rank 2 is outside \[0, 2\)"),
        ({"rank": -1}, "rank -1"),
        ({"seed": -1}, "seed -1"),
        ({"order": "random"}, "order 'random'"),
        ({"decoder": "opencv"}, "decoder 'opencv'"),
        ({"device": "tpu7"}, "device 'tpu7' is unknown"),
        ({"device": "meta"}, "not on this machine"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not on this machine"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"prefetch": 0}, "prefetch is 0"),
    ],
)
def test_arguments_that_cannot_work_are_refused(records: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        loader_of(records, **settings)


def test_a_small_data_set_is_one_partial_batch_when_asked_for(records: Path) -> None:
    (batch,) = loader_of(records, batch_size=64, drop_last=False, order="sequential")
    assert batch.indices.tolist() == list(range(NUM_IMAGES))


def test_several_files_are_one_data_set(records: Path, tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "more.rec") as writer:
        writer.write(8, encoded(picture(99)))
    batches = list(loader_of([records, tmp_path / "more.rec"], order="sequential"))
    assert batches[-1].identities[-1] == 8
    assert batches[-1].indices[-1] == NUM_IMAGES


def test_a_record_damaged_since_opening_is_named(records: Path, tmp_path: Path) -> None:
    copy = tmp_path / "train.rec"
    copy.write_bytes(records.read_bytes())
    copy.with_suffix(".idx").write_bytes(records.with_suffix(".idx").read_bytes())
    loader = loader_of(copy)
    with copy.open("r+b") as stream:
        stream.truncate(2000)
    with pytest.raises(DataError, match=r"record \d+"):
        list(loader)
