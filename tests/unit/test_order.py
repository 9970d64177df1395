"""The order of samples: a permutation, the same for any number of ranks."""

import math
from collections import Counter

import numpy as np
import pytest

from data_pipeline.augmentation_draws import draw_flips
from data_pipeline.order import batch_places, count_batches, images_at

pytestmark = pytest.mark.unit


def epoch_of(num_images: int, seed: int = 3, epoch: int = 1) -> np.ndarray:
    return images_at(np.arange(num_images), num_images, seed, epoch, "global")


@pytest.mark.parametrize("num_images", [1, 2, 3, 5, 7, 16, 17, 252, 9525, 10_007])
def test_an_epoch_holds_every_image_once(num_images: int) -> None:
    assert np.array_equal(np.sort(epoch_of(num_images)), np.arange(num_images))


def test_every_order_of_four_images_is_about_as_frequent() -> None:
    draws, orders = 4800, math.factorial(4)
    counts = Counter(tuple(epoch_of(4, seed=seed).tolist()) for seed in range(draws))
    deviation = sum((count - draws / orders) ** 2 for count in counts.values()) / (draws / orders)
    assert len(counts) == orders
    assert deviation < 49.7  # chi-square with 23 degrees of freedom: 0.1%


def test_neighbours_in_the_file_do_not_stay_together() -> None:
    n, seeds = 1009, 200
    orders = np.array([epoch_of(n, seed=seed) for seed in range(seeds)])
    steps = np.bincount(((orders[:, 1:] - orders[:, :-1]) % n).ravel(), minlength=n)[1:]
    expected = steps.mean()
    # Chi-square over the n-1 possible steps from an image to the next: mean 1 per degree, spread sqrt(2/n).
    assert ((steps - expected) ** 2 / expected).sum() / (n - 2) < 1 + 5 * math.sqrt(2 / n)


def test_seed_and_epoch_change_the_order() -> None:
    base = epoch_of(1000, seed=5, epoch=0)
    for other in (epoch_of(1000, seed=5, epoch=1), epoch_of(1000, seed=6, epoch=0), epoch_of(1000, seed=0, epoch=5)):
        assert (base == other).mean() < 0.01


def test_the_order_is_pinned() -> None:
    # A checkpoint in the middle of an epoch is continued by later versions: these numbers may never change.
    assert epoch_of(10, seed=0, epoch=0).tolist() == [7, 4, 6, 8, 3, 5, 2, 1, 0, 9]
    assert np.flatnonzero(draw_flips(0.5, np.arange(16), 0, 0)).tolist() == [0, 4, 6, 7, 8, 13, 14]


def test_sequential_leaves_the_places() -> None:
    assert images_at(np.array([4, 2]), 9, 1, 1, "sequential").tolist() == [4, 2]


def test_flips_depend_on_seed_epoch_and_index_alone() -> None:
    indices = np.arange(100_000)
    drawn = draw_flips(0.5, indices, 7, 2)
    assert abs(drawn.mean() - 0.5) < 0.01
    shuffled = np.random.default_rng(0).permutation(indices)
    assert np.array_equal(draw_flips(0.5, shuffled, 7, 2), drawn[shuffled])
    for other in (draw_flips(0.5, indices, 7, 3), draw_flips(0.5, indices, 8, 2), np.roll(drawn, 1)):
        assert abs((drawn == other).mean() - 0.5) < 0.01


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8, 22 * 8])
@pytest.mark.parametrize("drop_last", [True, False])
def test_the_ranks_together_take_the_global_batch(world_size: int, drop_last: bool) -> None:
    global_batch, num_images = 22 * 8 * 3, 22 * 8 * 3 * 4 + 101
    whole = images_at(np.arange(num_images), num_images, 11, 4, "global")
    batches = count_batches(num_images, global_batch, drop_last)
    assert batches == (4 if drop_last else 5)
    for number in range(batches):
        parts = [batch_places(number, num_images, global_batch, rank, world_size) for rank in range(world_size)]
        together = images_at(np.concatenate(parts), num_images, 11, 4, "global")
        assert np.array_equal(together, whole[number * global_batch : (number + 1) * global_batch])
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1
        if number < 4 and global_batch % world_size == 0:
            assert sizes == {global_batch // world_size}


def test_22_nodes_of_8_ranks_take_the_same_samples_as_one() -> None:
    # One process plays all 176 ranks of 22 nodes, each asking only for its own places.
    nodes, local_ranks, batch_size, num_images = 22, 8, 5, 9_525
    world_size = nodes * local_ranks
    global_batch = world_size * batch_size
    seen: list[int] = []
    for number in range(count_batches(num_images, global_batch, drop_last=False)):
        for node in range(nodes):
            for local_rank in range(local_ranks):
                places = batch_places(number, num_images, global_batch, node * local_ranks + local_rank, world_size)
                seen += images_at(places, num_images, 0, 9, "global").tolist()
    alone = images_at(np.arange(num_images), num_images, 0, 9, "global")
    assert seen == alone.tolist()


def test_fewer_samples_than_ranks_leave_some_without() -> None:
    sizes = [len(batch_places(1, 10, 7, rank, 7)) for rank in range(7)]
    assert sum(sizes) == 3
    assert set(sizes) == {0, 1}
