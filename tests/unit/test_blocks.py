"""The order of shuffled blocks: every image once, a few blocks at a time, and how well that shuffles."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.blocks import BlockOrder, BlockShape
from data_pipeline.order import images_at

pytestmark = pytest.mark.unit


def epoch_of(num_images: int, shape: BlockShape, seed: int = 3, epoch: int = 1) -> np.ndarray:
    return images_at(np.arange(num_images), num_images, seed, epoch, "blocks", shape)


@settings(deadline=None)
@given(
    n=st.integers(1, 700), block=st.integers(1, 90), window=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**31 - 1),
)  # fmt: skip
def test_an_epoch_holds_every_image_once_and_each_window_its_blocks(
    n: int, block: int, window: int, seed: int, epoch: int
) -> None:
    shape = BlockShape(block, window)
    drawn = epoch_of(n, shape, seed, epoch)
    assert np.array_equal(np.sort(drawn), np.arange(n))
    order = BlockOrder(n, seed, epoch, shape)
    blocks = order.blocks_at(np.arange(order.num_blocks))
    assert sorted(blocks.tolist()) == list(range(-(-n // block)))
    end = 0
    for number, first in enumerate(range(0, order.num_blocks, window)):
        places = order.places_of(number)
        assert places.start == end
        end = places.stop
        assert (order.window_at(np.arange(places.start, end)) == number).all()
        own = [image for each in blocks[first : first + window].tolist() for image in order.images_of(each)]
        assert sorted(drawn[places.start : end].tolist()) == sorted(own)
    assert end == n


@settings(deadline=None)
@given(
    n=st.integers(1, 2**60), block=st.integers(1, 2**63), window=st.integers(1, 2**63), data=st.data(),
)  # fmt: skip
def test_huge_data_sets_are_ordered_place_by_place(n: int, block: int, window: int, data: st.DataObject) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8, unique=True)))
    shape = BlockShape(block, window)
    drawn = images_at(places, n, 1, 2, "blocks", shape)
    assert ((drawn >= 0) & (drawn < n)).all()
    assert len(set(drawn.tolist())) == len(places)
    one_by_one = [
        int(images_at(places[[i]], n, 1, 2, "blocks", BlockShape(block, window))[0]) for i in range(len(places))
    ]
    assert drawn.tolist() == one_by_one


@pytest.mark.parametrize("order", ["global", "blocks"])
def test_ten_billion_images_take_no_memory(order: str) -> None:
    places = np.arange(7 * 10**9, 7 * 10**9 + 1024)
    tracemalloc.start()
    drawn = images_at(places, 10**10, 0, 0, order)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(drawn.tolist())) == 1024
    assert peak < 2_000_000


def test_the_order_is_pinned() -> None:
    # A checkpoint in the middle of an epoch is continued by later versions: these numbers may never change.
    assert epoch_of(10, BlockShape(3, 2), seed=0, epoch=0).tolist() == [0, 9, 2, 1, 8, 5, 6, 4, 7, 3]
    assert images_at(np.arange(4), 10**9, 1, 2, "blocks").tolist() == [996552905, 730595448, 802512292, 145596792]
    assert BlockShape() == BlockShape(256, 256)


def test_seed_and_epoch_change_the_order() -> None:
    shape = BlockShape(10, 5)
    base = epoch_of(1000, shape, seed=5, epoch=0)
    for seed, epoch in ((5, 1), (6, 0), (0, 5)):
        assert (base == epoch_of(1000, shape, seed, epoch)).mean() < 0.03


def test_the_order_of_blocks_is_fair() -> None:
    # Which block comes where: every pair (block, place) about equally often, over seeds. Uneven last block.
    n, shape, seeds = 295, BlockShape(10, 4), 3000
    counts = np.zeros((30, 30))
    for seed in range(seeds):
        order = BlockOrder(n, seed, 0, shape)
        counts[order.blocks_at(np.arange(30)), np.arange(30)] += 1
    deviation = ((counts - seeds / 30) ** 2 / (seeds / 30)).sum()
    freedom = 29 * 29
    assert abs(deviation - freedom) < 5 * math.sqrt(2 * freedom)


def test_inside_a_window_the_shuffle_is_fair() -> None:
    # Which image of a window comes where in it.
    n, shape, seeds = 60, BlockShape(5, 4), 3000
    counts = np.zeros((20, 20))
    for seed in range(seeds):
        drawn = epoch_of(n, shape, seed)[20:40]
        counts[np.argsort(np.argsort(drawn)), np.arange(20)] += 1
    deviation = ((counts - seeds / 20) ** 2 / (seeds / 20)).sum()
    freedom = 19 * 19
    assert abs(deviation - freedom) < 5 * math.sqrt(2 * freedom)


def test_windows_are_shuffled_differently() -> None:
    n, shape = 1000, BlockShape(10, 10)
    windows = np.argsort(np.argsort(epoch_of(n, shape).reshape(10, 100), axis=1), axis=1)
    assert len({tuple(each) for each in windows.tolist()}) == 10


def test_neighbours_in_the_file_meet_in_a_batch_as_often_as_documented() -> None:
    """Identities of g neighbours: about N * (g - 1) / S others of one's own identity in the batch."""
    n, g, batch = 40_000, 20, 200
    identities = np.arange(n) // g

    def others(drawn: np.ndarray) -> float:
        met = 0
        for start in range(0, n, batch):
            counts = np.unique(identities[drawn[start : start + batch]], return_counts=True)[1]
            met += (counts * (counts - 1)).sum()
        return met / n

    true_shuffle = others(images_at(np.arange(n), n, 0, 0, "global"))
    assert true_shuffle == pytest.approx(batch * (g - 1) / n, rel=0.15)
    for shape in (BlockShape(100, 10), BlockShape(100, 40), BlockShape(40, 100)):
        expected = batch * (g - 1) / (shape.images * shape.window)
        assert others(epoch_of(n, shape)) == pytest.approx(expected, rel=0.1)
    # Neighbours in the file are no neighbours in the order.
    drawn = epoch_of(n, BlockShape(100, 40))
    assert (np.abs(np.diff(drawn)) == 1).mean() < 3 * 2 / 4000
