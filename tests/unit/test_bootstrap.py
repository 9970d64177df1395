"""Intervals over identities: weights by hand, and that correlated pairs make them wider."""

import numpy as np
import pytest

from trainer.evaluation.bootstrap import (
    PairBootstrap,
    PairSample,
    identity_weights,
    percentile_intervals,
    share_interval,
    weighted_share,
)
from trainer.evaluation.folds import fold_accuracy, fold_numbers
from trainer.evaluation.operating_points import operating_points
from trainer.evaluation.pair_identities import identities_of_pairs, number_equal_images
from trainer.evaluation.roc import compute_roc, equal_error_rate

pytestmark = pytest.mark.unit


def sample(seed=0, pairs=400, identities=40, folds=True):
    generator = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    first = generator.integers(0, identities, pairs)
    second = np.where(same, first, (first + generator.integers(1, identities, pairs)) % identities)
    easy = generator.normal(0.4, 0.15, identities)  # some people are recognised well, some are not
    scores = np.where(same, easy[first], 0.0) + generator.normal(0, 0.1, pairs)
    return PairSample(scores, same, first, second, identities, fold_numbers(same) if folds else None)


def test_without_drawing_the_rates_are_the_sets_own():
    pairs = sample()
    bootstrap = PairBootstrap(pairs, ("1e-2", "1e-1"), seed=0)
    rates = bootstrap.rates(np.ones(len(pairs.same)))
    loose, strict = operating_points(pairs.scores, pairs.same, ("1e-1", "1e-2"))
    assert rates["far 1e-1"] == loose.tar
    assert rates["far 1e-2"] == strict.tar
    assert rates["equal_error_rate"] == pytest.approx(equal_error_rate(compute_roc(pairs.scores, pairs.same)))
    assert rates["accuracy_mean"] == pytest.approx(fold_accuracy(pairs.scores, pairs.same).mean, abs=0.011)


def test_weights_by_hand():
    # Same pairs of A (0.9) and B (0.4); different pairs A-B (0.5), A-C (0.2), B-C (0.1).
    pairs = PairSample(
        np.array([0.9, 0.4, 0.5, 0.2, 0.1]),
        np.array([True, True, False, False, False]),
        np.array([0, 1, 0, 0, 1]),
        np.array([0, 1, 1, 2, 2]),
        3,
    )
    bootstrap = PairBootstrap(pairs, ("0.5",), seed=0)
    # A twice, B once, C not at all: same pairs weigh 2 and 1, different ones 2, 0, 0.
    # FAR 0.5 allows none of A-B's weight 2 of 2, so only A's pair passes: 2 of 3.
    order = [0, 2, 1, 3, 4]  # scores falling
    weights = np.array([2.0, 1.0, 2.0, 0.0, 0.0])[order]
    assert bootstrap.rates(weights)["far 0.5"] == pytest.approx(2 / 3)
    assert weighted_share(np.array([1, 0, 3]), np.array([2, 2, 4]), np.array([2, 1, 0])) == pytest.approx(2 / 6)


def test_a_replicate_is_the_weighted_sample():
    pairs = sample(3, folds=False)
    bootstrap = PairBootstrap(pairs, ("1e-1",), seed=7)
    drawn = identity_weights(pairs.identities, 7, 5)
    assert drawn.sum() == pairs.identities
    assert not np.array_equal(drawn, identity_weights(pairs.identities, 7, 6))
    # The same, with each pair written down as often as it counts.
    times = np.where(pairs.same, drawn[pairs.first], drawn[pairs.first] * drawn[pairs.second])
    scores, same = np.repeat(pairs.scores, times), np.repeat(pairs.same, times)
    (point,) = operating_points(scores, same, ("1e-1",))
    found = bootstrap.replicate(5)
    assert found["far 1e-1"] == pytest.approx(point.tar)
    assert found["equal_error_rate"] == pytest.approx(equal_error_rate(compute_roc(scores, same)))


@pytest.mark.parametrize("targets", [("1e-2", "1e-1"), ("0.9",)])
def test_the_highest_scores_tell_as_much_as_all(targets):
    """Of large samples half is enough; a rate that lies in the other half is found all the same."""
    for seed in range(3):
        pairs = sample(seed, pairs=600, folds=False)
        pairs.scores[:] = pairs.scores.round(2)  # many equal ones
        whole = PairBootstrap(pairs, targets, seed=7)
        head = PairBootstrap(pairs, targets, seed=7, whole=10)
        assert head._head < 600
        for number in range(20):
            assert head.replicate(number) == pytest.approx(whole.replicate(number), abs=1e-12)


def test_accuracy_of_a_replicate_by_writing_pairs_down():
    pairs = sample(4, pairs=60)
    weights = np.random.default_rng(1).integers(0, 3, 60).astype(float)
    order = np.argsort(-pairs.scores, kind="stable")
    accuracies = []
    for fold in range(10):
        inside = pairs.folds == fold
        if not weights[inside].sum():
            continue
        candidates = [*np.unique(pairs.scores), np.inf]
        right = [np.sum(weights[~inside] * ((pairs.scores[~inside] >= t) == pairs.same[~inside])) for t in candidates]
        best = candidates[len(right) - 1 - int(np.argmax(right[::-1]))]
        hit = (pairs.scores[inside] >= best) == pairs.same[inside]
        accuracies.append(np.sum(weights[inside] * hit) / weights[inside].sum())
    found = PairBootstrap(pairs, (), seed=0).rates(weights[order])["accuracy_mean"]
    assert found == pytest.approx(np.mean(accuracies))


def test_pairs_of_few_people_make_the_interval_wider():
    """A hundred pairs of ten people say less than a hundred pairs of a hundred people."""
    hits = np.random.default_rng(2).random(100) < 0.7
    many = share_interval(hits.astype(int), np.ones(100, int), replicates=400, confidence=0.95, seed=1)
    grouped = np.sort(hits).reshape(10, 10).sum(axis=1)
    few = share_interval(grouped, np.full(10, 10), replicates=400, confidence=0.95, seed=1)
    assert many[0] < 0.7 < many[1]
    assert few[1] - few[0] > 1.5 * (many[1] - many[0])


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of 200 samples of 60 people with 5 trials each, about nine tenths of the 90% intervals hold the true rate."""
    generator = np.random.default_rng(5)
    held = 0
    for number in range(200):
        chance = generator.beta(4, 2, 60)  # mean 2/3
        hits = generator.binomial(5, chance)
        low, high = share_interval(hits, np.full(60, 5), replicates=200, confidence=0.9, seed=number)
        held += low <= 2 / 3 <= high
    assert 0.82 <= held / 200 <= 0.97


def test_unmeasurable_replicates_are_left_out_and_too_many_of_them_leave_no_interval():
    few = [{"a": 0.5}] * 19 + [{"a": float("nan")}]
    assert percentile_intervals(few, 0.95) == {"a": (0.5, 0.5)}
    assert percentile_intervals(few[-12:] + few[-1:] * 3, 0.95) == {}
    assert percentile_intervals([], 0.95) == {}


def test_identities_are_joined_by_same_pairs():
    first, second = np.array([0, 2, 4, 1]), np.array([1, 3, 5, 2])
    found = identities_of_pairs(first, second, np.array([True, True, False, True]), 6)
    assert found[0] == found[1] == found[2] == found[3]
    assert len(set(found.tolist())) == 3
    assert number_equal_images([b"x", b"y", b"x"]).tolist() == [0, 1, 0]
