"""Verification arithmetic against hand-computed values and brute force."""

import numpy as np
import pytest

from trainer.errors import ConfigError
from trainer.evaluation import verify
from trainer.evaluation.folds import best_threshold, fold_accuracy, fold_numbers
from trainer.evaluation.roc import area_under, compute_roc, equal_error_rate, tar_at_far, thin_roc

pytestmark = pytest.mark.unit

# By hand: thresholds fall through .9 (same), .8 (different), .7 (two same, one different, tied), .2 (different).
SCORES = np.array([0.9, 0.8, 0.7, 0.7, 0.7, 0.2])
SAME = np.array([True, False, True, True, False, False])


def drawn(seed, pairs, ties):
    """Overlapping scores of uneven kinds; with ``ties``, only about a dozen distinct values."""
    generator = np.random.default_rng(seed)
    same = generator.random(pairs) < 0.4
    same[:4] = [True, False, True, False]
    scores = generator.normal(0.3 * same, 0.25)
    return (np.round(scores, 1) if ties else scores), same


def accept_rates(scores, same, threshold):
    accepted = scores >= threshold
    return np.mean(accepted[~same]), np.mean(accepted[same])


def test_roc_by_hand():
    roc = compute_roc(SCORES, SAME)
    np.testing.assert_allclose(roc.far, [0, 0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(roc.tar, [0, 1 / 3, 1 / 3, 1, 1])
    # Same above different in 3 + 1 + 1 of 9 comparisons, equal in 2.
    assert area_under(roc) == pytest.approx((5 + 2 / 2) / 9)
    # FAR + TAR passes 1 between (1/3, 1/3) and (2/3, 1), a third of the way.
    assert equal_error_rate(roc) == pytest.approx(1 / 3 + 1 / 9)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("seed", "pairs"), [(0, 7), (1, 101), (2, 400)])
def test_roc_against_brute_force(seed, pairs, ties):
    scores, same = drawn(seed, pairs, ties)
    roc = compute_roc(scores, same)
    expected = [accept_rates(scores, same, t) for t in [np.inf, *np.unique(scores)[::-1]]]
    np.testing.assert_allclose(np.stack([roc.far, roc.tar], axis=1), expected)
    above = np.sign(scores[same][:, None] - scores[~same][None, :])
    assert area_under(roc) == pytest.approx(np.mean((above + 1) / 2))
    # At the equal error rate the polyline has FAR = 1 - TAR.
    rate = equal_error_rate(roc)
    along = np.linspace(0, 1, 20001)
    far = np.concatenate([a + along * (b - a) for a, b in zip(roc.far, roc.far[1:], strict=False)])
    tar = np.concatenate([a + along * (b - a) for a, b in zip(roc.tar, roc.tar[1:], strict=False)])
    assert rate == pytest.approx(far[np.argmin(abs(far + tar - 1))], abs=1e-4)
    for target, value in tar_at_far(roc).items():
        if np.sum(~same) < round(1 / float(target)):
            assert value is None
        else:
            assert value == max(t for f, t in expected if f <= float(target))


def test_far_is_measurable_from_the_exact_number_of_different_pairs():
    for different, measurable in ((999, False), (1000, True)):
        scores = np.concatenate([[5.0, 6.0, -1.0], np.arange(different) / different])
        same = np.arange(len(scores)) < 3
        rate = tar_at_far(compute_roc(scores, same))["1e-3"]
        assert (rate is not None) == measurable
        assert rate in (None, pytest.approx(2 / 3))


def test_perfect_and_useless_scores():
    same = np.arange(40) % 2 == 0
    perfect = verify("p", np.where(same, 0.5, -0.25), same)
    assert (perfect.accuracy_mean, perfect.accuracy_std, perfect.auc, perfect.equal_error_rate) == (1, 0, 1, 0)
    assert perfect.threshold == 0.125
    useless = verify("u", np.zeros(40), same)
    assert (useless.accuracy_mean, useless.auc, useless.equal_error_rate) == (0.5, 0.5, 0.5)
    assert np.isfinite(useless.threshold)
    wrong = verify("w", np.where(same, -0.5, 0.5), same)
    assert (wrong.auc, wrong.equal_error_rate) == (0, 1)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("seed", "pairs"), [(3, 5), (4, 60), (5, 333)])
def test_best_threshold_against_brute_force(seed, pairs, ties):
    scores, same = drawn(seed, pairs, ties)
    values = np.unique(scores)
    candidates = [-np.inf, *((values[1:] + values[:-1]) / 2), np.inf]
    accuracies = [np.mean((scores >= t) == same) for t in candidates]
    strictest = max(t for t, a in zip(candidates, accuracies, strict=True) if a == max(accuracies))
    assert best_threshold(scores, same) == pytest.approx(strictest)


def test_threshold_between_neighbouring_floats_still_separates():
    low = 1.0
    scores = np.array([low, np.nextafter(low, 2)])
    assert best_threshold(scores, np.array([False, True])) == scores[1]


def test_folds_of_lfw_layout_are_the_official_ones():
    same = np.tile(np.repeat([True, False], 30), 10)
    np.testing.assert_array_equal(fold_numbers(same), np.repeat(np.arange(10), 60))


@pytest.mark.parametrize(("n_same", "n_different", "folds"), [(23, 41, 10), (3, 50, 3), (50, 2, 2), (10, 10, 10)])
def test_folds_of_sorted_sets_are_balanced(n_same, n_different, folds):
    same = np.repeat([True, False], [n_same, n_different])
    numbers = fold_numbers(same)
    for of_kind in (numbers[same], numbers[~same]):
        assert (np.diff(of_kind) >= 0).all()
        counts = np.bincount(of_kind, minlength=folds)
        assert len(counts) == folds
        assert counts.min() >= 1
        assert np.ptp(counts) <= 1


@pytest.mark.parametrize("ties", [False, True])
def test_fold_accuracy_against_brute_force(ties):
    scores, same = drawn(6, 157, ties)
    numbers = fold_numbers(same)
    expected = []
    for fold in range(10):
        train, test = numbers != fold, numbers == fold
        values = np.unique(scores[train])
        candidates = [-np.inf, *((values[1:] + values[:-1]) / 2), np.inf]
        best = max(candidates, key=lambda t: (np.mean((scores[train] >= t) == same[train]), t))
        expected.append(np.mean((scores[test] >= best) == same[test]))
    accuracy = fold_accuracy(scores, same)
    assert accuracy.mean == pytest.approx(np.mean(expected))
    assert accuracy.std == pytest.approx(np.std(expected))


def test_fold_accuracy_does_not_see_the_fold_it_judges():
    """Two folds that contradict each other: a threshold fitted on all pairs would get half of them right."""
    same = np.array([True, False, True, False])
    scores = np.array([0.9, 0.1, 0.1, 0.9])  # the second pair of each kind is the other way round
    assert fold_accuracy(scores, same).mean < 0.5 + 1e-9
    assert np.mean((scores >= best_threshold(scores, same)) == same) == 0.5


@pytest.mark.parametrize("kept", [[0, 1, 2], [3, 4, 5], [0, 2, 3]])
def test_too_few_pairs_of_a_kind(kept):
    same = np.array([True, True, True, False, False, False])[kept]
    with pytest.raises(ConfigError, match=r"pairs few: .* need 2 of each"):
        verify("few", np.linspace(0, 1, 3), same)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite(bad):
    scores = SCORES.copy()
    scores[[2, 4]] = bad
    with pytest.raises(ConfigError, match=r"pairs x: the score of 2 of 6 pairs \(first: 2\)"):
        verify("x", scores, SAME)


def test_scores_of_another_length():
    with pytest.raises(ConfigError, match="one score for each pair"):
        verify("x", SCORES[:-1], SAME)


def test_thinning_keeps_every_corner_when_there_is_room():
    scores, same = drawn(7, 300, ties=True)
    roc = compute_roc(scores, same)
    far, tar = thin_roc(roc)
    np.testing.assert_allclose(np.interp(roc.far + roc.tar, far + tar, tar), roc.tar)
    straight = compute_roc(np.linspace(1, 0, 50), np.repeat([True, False], [20, 30]))
    np.testing.assert_array_equal(np.stack(thin_roc(straight)), [[0, 0, 1], [0, 1, 1]])


def test_thinning_a_long_curve_keeps_its_ends_and_its_shape():
    scores, same = drawn(8, 60_000, ties=False)
    roc = compute_roc(scores, same)
    far, tar = thin_roc(roc)
    assert len(far) <= 1000 < len(roc.far)
    assert (far[0], tar[0], far[-1], tar[-1]) == (0, 0, 1, 1)
    assert (np.diff(far) >= 0).all()
    assert (np.diff(tar) >= 0).all()
    assert abs(np.interp(roc.far + roc.tar, far + tar, tar) - roc.tar).max() < 2e-3
    # The low end, where the curve is read on a log scale, keeps exact points.
    for target in (1e-4, 1e-3, 1e-2):
        exact = roc.tar[roc.far <= target][-1]
        assert tar[far <= target][-1] == pytest.approx(exact, abs=0.01)


def test_result_can_be_computed_again_from_its_stored_scores():
    scores, same = drawn(9, 91, ties=False)
    first = verify("a", scores, same)
    again = verify("a", first.scores, first.same)
    assert first.scores.dtype == np.float32
    assert (first.accuracy_mean, first.auc, first.threshold) == (again.accuracy_mean, again.auc, again.threshold)
    best = max(np.mean((first.scores >= t) == same) for t in [*first.scores, np.inf])
    assert np.mean((first.scores >= first.threshold) == same) == best
