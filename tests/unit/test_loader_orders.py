"""Every order through the loader: the same global batches on any number of ranks, resumed anywhere, refused clearly."""

import io
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipeline import Batch, DataError, Loader, RecordReader, RecordWriter, make_loader

pytestmark = pytest.mark.unit

NUM_IMAGES, SIZE = 101, 8
LABELS = np.random.default_rng(2).permutation(np.repeat([0, 4, 2**40, 9, 7], [1, 10, 25, 30, 35]))
ORDERS: dict[str, dict[str, Any]] = {
    "global": {"order": "global"},
    "blocks": {"order": "blocks", "block_images": 7, "window_blocks": 4},
    "one window": {"order": "blocks"},
    "sequential": {"order": "sequential"},
    "balanced": {"identities_per_batch": 4, "images_per_identity": 6},
}
EVERY_ONCE = [name for name in ORDERS if name != "balanced"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> RecordReader:
    path = tmp_path_factory.mktemp("records") / "train.rec"
    with RecordWriter(path) as writer:
        for number, identity in enumerate(LABELS.tolist()):
            buffer = io.BytesIO()
            Image.new("RGB", (SIZE, SIZE), (number, 0, 0)).save(buffer, "PNG")
            writer.write(identity, buffer.getvalue())
    return RecordReader(path)


def loader_of(reader: RecordReader, world_size: int = 1, rank: int = 0, batch: int = 24, **settings: Any) -> Loader:
    settings = {"seed": 5, "decoder": "cpu", "image_size": SIZE, **settings}
    return make_loader(reader, batch_size=batch // world_size, rank=rank, world_size=world_size, **settings)


def joined(loaders: list[Loader]) -> list[list[int]]:
    """Images of each global batch, the ranks' parts put together in their order."""
    return [torch.cat([part.indices for part in step]).tolist() for step in zip(*loaders, strict=True)]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize(("batch", "worlds"), [(24, [2, 3, 4, 6, 8]), (84, [2, 3, 4, 7])])
def test_any_number_of_ranks_gives_the_same_global_batches(
    reader: RecordReader, batch: int, worlds: list[int], name: str, drop_last: bool
) -> None:
    settings = {**ORDERS[name], "drop_last": drop_last, "batch": batch}
    if name == "balanced" and batch == 84:
        settings |= {"images_per_identity": 21}
    alone = joined([loader_of(reader, **settings)])
    for world_size in worlds:
        ranks = [loader_of(reader, world_size, rank, **settings) for rank in range(world_size)]
        assert joined(ranks) == alone
        assert {len(loader) for loader in ranks} == {len(alone)}
    seen = Counter(image for step in alone for image in step)
    if name == "balanced":
        assert [len(step) for step in alone] == [batch] * (NUM_IMAGES // batch)
    else:
        assert set(seen.values()) == {1}
        assert len(seen) == (NUM_IMAGES // batch * batch if drop_last else NUM_IMAGES)


@pytest.mark.parametrize("name", EVERY_ONCE)
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7, 8])
def test_an_epoch_covers_every_image_once_at_any_world_size(reader: RecordReader, name: str, world_size: int) -> None:
    # A batch of 3 a rank: 101 images leave 2, 5, 2, 5, 17 and 5 for the last step, so some ranks go without.
    loaders = [
        loader_of(reader, world_size, rank, 3 * world_size, drop_last=False, **ORDERS[name])
        for rank in range(world_size)
    ]
    for _ in range(2):
        steps = joined(loaders)
        assert sorted(image for step in steps for image in step) == list(range(NUM_IMAGES))
        assert len(steps) == len(loaders[0]) == -(-NUM_IMAGES // (3 * world_size))


@pytest.mark.parametrize("name", EVERY_ONCE)
def test_fewer_images_than_ranks(reader: RecordReader, name: str) -> None:
    ranks = [loader_of(reader, 120, rank, 120, drop_last=False, **ORDERS[name]) for rank in range(120)]
    batches: list[Batch] = [next(iter(loader)) for loader in ranks]
    sizes = [len(batch.indices) for batch in batches]
    assert (sum(sizes), set(sizes)) == (NUM_IMAGES, {0, 1})
    assert all(batch.images.shape == (size, 3, SIZE, SIZE) for batch, size in zip(batches, sizes, strict=True))
    assert [loader.smallest_batch for loader in ranks] == [0] * 120


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("name", ORDERS)
def test_every_position_is_resumed_exactly_at_other_world_sizes(
    reader: RecordReader, name: str, drop_last: bool
) -> None:
    settings = {**ORDERS[name], "drop_last": drop_last}
    original = loader_of(reader, **settings)
    original.set_epoch(3)
    steps, states = [], [original.state_dict()]
    for epoch in range(2):
        for batch in original:
            steps.append(batch.indices.tolist())
            states.append(json.loads(json.dumps(original.state_dict())))
        assert len(steps) == (epoch + 1) * len(original)
    for taken, state in enumerate(states[:-1]):
        world_size = (1, 2, 3, 4, 8)[taken % 5]
        ranks = [loader_of(reader, world_size, rank, **settings) for rank in range(world_size)]
        for loader in ranks:
            loader.load_state_dict(state)
            loader.set_epoch(state["epoch"])
        rest = joined(ranks)
        if state["epoch"] == 3:
            rest += joined(ranks)
        assert rest == steps[taken:]


def test_balanced_batches_hold_the_identities_asked_for(reader: RecordReader) -> None:
    loader = loader_of(reader, **ORDERS["balanced"])
    for _ in range(3):
        for batch in loader:
            groups = batch.identities.reshape(4, 6)
            assert (groups == groups[:, :1]).all()
            assert len(set(groups[:, 0].tolist())) == 4
            assert batch.identities.tolist() == LABELS[batch.indices.numpy()].tolist()


def test_samples_counts_what_the_ranks_got_together(reader: RecordReader) -> None:
    loader = loader_of(reader, 2, 1, drop_last=False)
    assert loader.last_global_batch == 0
    assert [loader.last_global_batch for _ in loader] == [24, 24, 24, 24, 5]
    assert (loader.smallest_batch, loader_of(reader, 2, 1).smallest_batch) == (2, 12)
    assert loader_of(reader, 2, 1, 14, drop_last=False).smallest_batch == 1  # 3 images for 2 ranks
    assert loader_of(reader, drop_last=False, **ORDERS["balanced"]).smallest_batch == 24


def test_a_state_without_the_newer_keys_is_continued(reader: RecordReader) -> None:
    state = {
        "version": 1, "seed": 5, "epoch": 2, "samples": 48, "global_batch": 24, "num_images": NUM_IMAGES,
        "order": "global",
    }  # fmt: skip
    loader, whole = loader_of(reader), loader_of(reader)
    loader.load_state_dict(state)
    whole.set_epoch(2)
    assert joined([loader]) == joined([whole])[2:]
    with pytest.raises(DataError, match="block_images 0 but this loader has 7"):
        loader_of(reader, **ORDERS["blocks"]).load_state_dict({**state, "order": "blocks"})


def test_the_partial_batch_is_passed_over_by_a_loader_that_drops_it(reader: RecordReader) -> None:
    keeping, dropping = loader_of(reader, drop_last=False), loader_of(reader)
    states = [keeping.state_dict() for _ in keeping]
    dropping.load_state_dict(states[-2])
    assert (dropping.state_dict()["epoch"], dropping.state_dict()["samples"]) == (1, 0)
    keeping.set_epoch(1)
    assert joined([dropping]) == joined([keeping])[:-1]


@pytest.mark.parametrize(
    ("saved", "present", "message"),
    [
        ("blocks", {**ORDERS["blocks"], "block_images": 8}, "block_images 7 but this loader has 8"),
        ("blocks", {**ORDERS["blocks"], "window_blocks": 5}, "window_blocks 4 but this loader has 5"),
        ("blocks", {"order": "global"}, "order 'blocks' but this loader has 'global'"),
        ("global", ORDERS["balanced"], "identities_per_batch 0 but this loader has 4"),
        ("balanced", {"order": "global"}, "identities_per_batch 4 but this loader has 0"),
        (
            "balanced",
            {"identities_per_batch": 3, "images_per_identity": 8},
            "identities_per_batch 4 but this loader has 3",
        ),
    ],
)
def test_the_position_of_another_order_is_refused(
    reader: RecordReader, saved: str, present: dict[str, Any], message: str
) -> None:
    state = loader_of(reader, **ORDERS[saved]).state_dict()
    with pytest.raises(DataError, match=message):
        loader_of(reader, **present).load_state_dict(state)


def test_sizes_of_blocks_mean_nothing_to_other_orders(reader: RecordReader) -> None:
    loader_of(reader, block_images=9).load_state_dict(loader_of(reader, window_blocks=3).state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "random"}, "order 'random' is unknown: use global, blocks or sequential"),
        ({"order": "blocks", "block_images": 0}, "block_images is 0: it must be at least 1"),
        ({"order": "blocks", "window_blocks": -1}, "window_blocks is -1"),
        ({"identities_per_batch": 4}, "identities_per_batch and images_per_identity belong together"),
        ({"images_per_identity": 4}, "identities_per_batch and images_per_identity belong together"),
        ({"identities_per_batch": 0, "images_per_identity": 4}, "identities_per_batch is 0"),
        (
            {"identities_per_batch": 4, "images_per_identity": 5},
            r"identities_per_batch 4 x images_per_identity 5 is 20, but the global batch \(batch_size x ranks\) is 24",
        ),
        ({**ORDERS["balanced"], "order": "blocks"}, "order 'blocks' cannot be balanced"),
        ({**ORDERS["balanced"], "order": "sequential"}, "order 'sequential' cannot be balanced"),
        ({"identities_per_batch": 6, "images_per_identity": 4}, "has images of 5 identities only"),
    ],
)
def test_arguments_that_cannot_work_are_refused(reader: RecordReader, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        loader_of(reader, **settings)
    assert "\n" not in str(caught.value)
