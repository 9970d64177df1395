"""Thresholds at chosen false accept rates: by hand, against scikit-learn's ROC, and from counts in bins."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from trainer.evaluation.operating_points import operating_points, threshold_above
from trainer.evaluation.roc import area_under, compute_roc, equal_error_rate
from trainer.evaluation.score_histogram import BIN_WIDTH, BINS, ScoreHistogram

pytestmark = pytest.mark.unit


def scored(seed, pairs=3000, digits=None):
    generator = np.random.default_rng(seed)
    same = generator.random(pairs) < 0.3
    scores = (generator.normal(0.0, 0.15, pairs) + 0.35 * same).clip(-1, 1).astype(np.float32).astype(np.float64)
    return (scores if digits is None else scores.round(digits)), same


def test_by_hand():
    # Ten different pairs 0.0 ... 0.9; same pairs 0.35, 0.75, 0.8, 0.95.
    scores = np.array([*np.arange(10) / 10, 0.35, 0.75, 0.8, 0.95])
    same = np.arange(14) >= 10
    loose, tight, none = operating_points(scores, same, ("0.2", "0.1", "0.01"))
    # Two may pass: 0.9 and 0.8; 0.7 must not, 0.75 passes, and the threshold lies halfway.
    assert (loose.far, loose.tar, loose.false_accepts) == (0.2, 0.75, 2)
    assert loose.threshold == (0.7 + 0.75) / 2
    assert tight.threshold == pytest.approx(0.85)
    # One may pass; the same pair of score 0.8 falls with the different pair of score 0.8.
    assert (tight.far, tight.tar, tight.false_accepts) == (0.1, 0.25, 1)
    assert (none.threshold, none.far, none.tar) == (None, None, None)


def test_equal_scores_of_different_pairs_pass_or_fall_together():
    scores = np.array([0.5, 0.5, 0.5, 0.1, 0.6])
    same = np.array([False, False, False, False, True])
    (point,) = operating_points(scores, same, ("0.5",))
    assert (point.far, point.tar) == (0.0, 1.0)


def test_where_nothing_lies_between_the_threshold_is_the_next_float():
    scores = np.array([0.1, 0.5, np.nextafter(0.5, 1)])
    assert threshold_above(0.5, scores) == np.nextafter(0.5, 1)
    assert threshold_above(scores[2], scores) == np.nextafter(scores[2], 1)


def test_a_rate_of_one_accepts_everything():
    scores, same = scored(1, 50)
    (point,) = operating_points(scores, same, ("1",))
    assert (point.far, point.tar) == (1.0, 1.0)
    assert np.all(scores >= point.threshold)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([None, 1, 2]), st.integers(4, 400))
def test_against_scikit_learn(seed, digits, pairs):
    scores, same = scored(seed, pairs, digits)
    same[:2] = True, False
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    targets = ("1e-3", "1e-2", "1e-1", "0.5")
    for point, target in zip(operating_points(scores, same, targets), targets, strict=True):
        if 1 / np.count_nonzero(~same) > float(target):
            assert point.tar is None
            continue
        place = np.flatnonzero(false <= float(target))[-1]
        assert point.tar == pytest.approx(true[place], abs=1e-12)
        # The lowest threshold of that TAR may stand anywhere on a horizontal stretch: FAR is the highest allowed.
        assert point.far == pytest.approx(false[place], abs=1e-12)
        accepted = scores >= point.threshold
        assert accepted[same].mean() == pytest.approx(point.tar, abs=1e-12)
        assert accepted[~same].mean() == point.far <= float(target)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([None, 1]), st.integers(4, 300))
def test_the_curve_is_scikit_learns(seed, digits, pairs):
    scores, same = scored(seed, pairs, digits)
    same[:2] = True, False
    roc = compute_roc(scores, same)
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.far, false, atol=1e-12)
    np.testing.assert_allclose(roc.tar, true, atol=1e-12)
    assert area_under(roc) == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
    crossing = np.interp(0.0, false + true - 1, false)
    assert equal_error_rate(roc) == pytest.approx(crossing, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_bins_keep_the_rate_and_say_how_much_they_may_cost(seed):
    scores, same = scored(seed, 20_000, 3 if seed == 4 else None)
    histogram = ScoreHistogram()
    for part in torch.from_numpy(scores[~same]).float().split(777):
        histogram.add(part)
    assert histogram.total == np.count_nonzero(~same)
    targets = ("1e-4", "1e-3", "1e-2", "1e-1", "1")
    exact = operating_points(scores, same, targets)
    for found, truth in zip(histogram.operating_points(scores[same], targets), exact, strict=True):
        if truth.tar is None:
            assert found.tar is None
            continue
        accepted = scores >= found.threshold
        assert found.far == accepted[~same].mean() <= float(found.target)
        assert found.tar == pytest.approx(accepted[same].mean(), abs=1e-12)
        assert found.tar <= truth.tar <= found.tar + found.tar_error + 1e-12
        rejected = scores[~same & (scores < truth.threshold)].max(initial=-1.0)
        assert rejected - 1e-9 <= found.threshold <= rejected + BIN_WIDTH or found.target == "1"


def test_scores_lie_in_the_bin_that_their_value_belongs_to():
    histogram = ScoreHistogram()
    edge = 5 * BIN_WIDTH
    below = float(np.nextafter(np.float32(edge), np.float32(0)))
    histogram.add(torch.tensor([edge, below, -1.0, 1.0, 1.0000001, -1.0000001]))
    middle = BINS // 2
    assert histogram.counts[middle + 5] == 1
    assert histogram.counts[middle + 4] == 1, "a score just below an edge is not rounded up to it"
    assert histogram.counts[0] == 2
    assert histogram.counts[-1] == 2


def test_the_curve_of_counts_touches_every_power_of_ten():
    scores, same = scored(9, 200_000)
    histogram = ScoreHistogram()
    histogram.add(torch.from_numpy(scores[~same]).float())
    far, tar = histogram.curve(scores[same])
    assert len(far) <= 1001
    assert np.all(np.diff(far) >= 0)
    assert np.all(np.diff(tar) >= 0)
    assert (far[-1], tar[-1]) == (1.0, 1.0)
    for point in operating_points(scores, same, ("1e-4", "1e-3", "1e-2", "1e-1")):
        at = tar[np.searchsorted(far, point.far * 1.02, side="right") - 1]
        assert at == pytest.approx(point.tar, abs=0.02)
