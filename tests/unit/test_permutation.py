"""Keyed permutations: a bijection of any size, its inverse, and numbers that never change."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.permutation import ROUNDS, ROUNDS_FOR_FEW, permute, random_words
from data_pipeline.round_robin import round_robin

pytestmark = pytest.mark.unit


@settings(deadline=None)
@given(size=st.integers(1, 400), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**40))
def test_any_size_is_permuted_and_taken_back(size: int, seed: int, epoch: int) -> None:
    keys = random_words(seed, epoch, count=ROUNDS)
    there = permute(np.arange(size), size, keys)
    assert np.array_equal(np.sort(there), np.arange(size))
    assert np.array_equal(permute(there, size, keys, inverse=True), np.arange(size))


@settings(deadline=None)
@given(size=st.integers(1, 2**62 - 1), data=st.data())
def test_huge_sizes_are_permuted_place_by_place(size: int, data: st.DataObject) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=20, unique=True)))
    keys = random_words(data.draw(st.integers(0, 2**63 - 1)), count=ROUNDS)
    there = permute(places, size, keys)
    assert ((there >= 0) & (there < size)).all()
    assert len(set(there.tolist())) == len(places)
    assert np.array_equal(permute(there, size, keys, inverse=True), places)


@pytest.mark.parametrize("root", [1, 2, 3, 2**16 - 1, 2**26 + 1, 2**30 - 35, 2**31 - 1])
def test_around_square_numbers(root: int) -> None:
    # The square root of a 64-bit number is rounded in float64: the sizes around squares are where that would show.
    keys = random_words(7, count=ROUNDS)
    for size in range(max(1, root * root - 2), root * root + 3):
        places = np.unique(np.linspace(0, size - 1, 50, dtype=np.int64).clip(0, size - 1))
        there = permute(places, size, keys)
        assert there.max() < size
        assert np.array_equal(permute(there, size, keys, inverse=True), places)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_every_order_of_a_few_is_about_as_frequent(size: int) -> None:
    orders = math.factorial(size)
    draws, each = 100 * orders, 100
    # Many permutations at once: each column of places has keys of its own.
    seeds = np.repeat(np.arange(draws), size)
    keys = random_words(seeds, count=ROUNDS_FOR_FEW)
    drawn = permute(np.tile(np.arange(size), draws), size, keys).reshape(draws, size)
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == orders
    deviation = sum((count - each) ** 2 / each for count in counts.values())
    freedom = orders - 1  # chi-square: mean = freedom, variance twice that
    assert deviation < freedom + 5 * math.sqrt(2 * freedom)


def test_a_permutation_for_each_place_is_the_same_as_one_after_the_other() -> None:
    sizes = np.array([1, 2, 3, 10, 999, 10**12])
    labels = np.array([5, 5, 6, 7, 8, 9])
    places = np.array([0, 1, 2, 9, 500, 10**11])
    together = permute(places, sizes, random_words(3, labels, count=ROUNDS))
    alone = [
        int(permute(places[i : i + 1], int(sizes[i]), random_words(3, int(labels[i]), count=ROUNDS))[0])
        for i in range(6)
    ]
    assert together.tolist() == alone


def sequence(length: int, size: int, apart: int, seed: int = 0) -> np.ndarray:
    return round_robin(np.arange(length), np.full(length, size), apart, (seed, 1), (seed, 2))


@settings(deadline=None)
@given(size=st.integers(1, 40), apart=st.integers(1, 45), seed=st.integers(0, 2**63 - 1))
def test_round_robin_uses_everything_before_anything_comes_again(size: int, apart: int, seed: int) -> None:
    drawn = sequence(5 * size, size, apart, seed)
    for start in range(0, 5 * size, size):
        assert sorted(drawn[start : start + size].tolist()) == list(range(size))
    if apart <= size:
        for start in range(len(drawn) - apart + 1):
            assert len(set(drawn[start : start + apart].tolist())) == apart


def test_passes_differ() -> None:
    passes = sequence(200 * 30, 30, 7).reshape(200, 30)
    assert len({tuple(each) for each in passes.tolist()}) == 200


@pytest.mark.parametrize(("size", "apart"), [(30, 7), (31, 4), (9, 5)])
def test_any_two_follow_each_other_equally_often(size: int, apart: int) -> None:
    seeds = 2000
    labels = np.repeat(np.arange(seeds), size)
    places = np.tile(np.arange(3 * size, 4 * size), seeds)  # the fourth pass of many sequences
    drawn = round_robin(places, np.full(len(places), size), apart, (labels, 1), (labels, 2)).reshape(seeds, size)
    pairs = np.bincount((drawn[:, :-1] * size + drawn[:, 1:]).ravel(), minlength=size * size).reshape(size, size)
    assert not pairs.diagonal().any()
    counts = pairs[~np.eye(size, dtype=bool)]
    deviation, freedom = ((counts - counts.mean()) ** 2 / counts.mean()).sum(), len(counts) - 1
    assert deviation < freedom + 5 * math.sqrt(2 * freedom)


def test_numbers_are_pinned() -> None:
    # Positions of interrupted runs hang on them: they may never change.
    assert random_words(1, 2, 3, count=2).tolist() == [13824762992756389094, 584736006418691176]
    assert permute(np.arange(7), 7, random_words(0, count=ROUNDS)).tolist() == [1, 4, 0, 5, 6, 2, 3]
    assert sequence(12, 6, 3).tolist() == [3, 1, 2, 5, 4, 0, 1, 2, 3, 4, 5, 0]
