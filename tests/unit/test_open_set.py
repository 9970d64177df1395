"""Open-set and closed-set identification, by hand and against counting."""

import numpy as np
import pytest

from trainer.evaluation.open_set import (
    LIST_LENGTH,
    identified,
    open_set_curve,
    open_set_points,
    probe_outcomes,
    rank_rates,
)

pytestmark = pytest.mark.unit


def test_by_hand():
    # Gallery: subjects 1, 2, 3. Probes of 1, 2, 3 and two strangers, 8 and 9.
    scores = np.array([[0.9, 0.5, 0.1], [0.6, 0.6, 0.2], [0.7, 0.4, 0.3], [0.65, 0.2, 0.1], [0.3, 0.2, 0.1]])
    subjects = np.array([[1, 2, 3], [3, 2, 1], [1, 2, 3], [1, 2, 3], [2, 1, 3]])
    found = probe_outcomes(scores, subjects, np.array([1, 2, 3, 8, 9]), np.array([1, 2, 3]))
    assert found.mated.tolist() == [True, True, True, False, False]
    # Probe 2's mate scores like another subject, which counts against it.
    assert found.rank[:3].tolist() == [1, 2, 3]
    assert rank_rates(found, (1, 2, 5)) == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3), 5: 1.0}
    half, none, all_strangers = open_set_points(found, ("0.5", "0.1", "1"))
    # One of two strangers may raise an alarm: 0.3 must not, the mate of 0.6 does, and the threshold lies halfway.
    assert (half.fpir, half.tpir, half.false_positives) == (0.5, pytest.approx(2 / 3), 1)
    assert half.threshold == pytest.approx(0.45)
    assert (none.threshold, none.tpir) == (None, None)
    assert (all_strangers.fpir, all_strangers.tpir) == (1.0, 1.0)
    fpir, fnir = open_set_curve(found)
    assert fpir.tolist() == [0.5, 1.0]
    assert fnir == pytest.approx([2 / 3, 0.0])


def test_a_mate_that_is_not_among_the_candidates_is_missed():
    found = probe_outcomes(
        np.array([[0.9, 0.8], [0.7, -np.inf]]), np.array([[2, 3], [2, -1]]), np.array([1, 2]), np.array([1, 2, 3])
    )
    assert found.rank.tolist() == [3, 1]
    assert identified(found, -1.0).tolist() == [False, True]


def test_two_templates_of_one_subject_count_once_against_nobody():
    found = probe_outcomes(np.array([[0.9, 0.8, 0.7]]), np.array([[4, 1, 1]]), np.array([1]), np.array([1, 4]))
    assert found.rank.tolist() == [2]
    assert found.mate.tolist() == [0.8]


@pytest.mark.parametrize("subjects", [[1, 2], [8, 9]])
def test_without_strangers_or_without_mates_nothing_is_measured(subjects):
    scores, candidates = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[1, 2], [2, 1]])
    found = probe_outcomes(scores, candidates, np.array(subjects), np.array([1, 2]))
    assert [point.tpir for point in open_set_points(found, ("0.5", "1"))] == [None, None]
    assert [len(each) for each in open_set_curve(found)] == [0, 0]


def test_against_counting_over_all_scores():
    generator = np.random.default_rng(3)
    gallery = np.arange(50)
    probes = generator.integers(0, 80, 400)
    scores = generator.normal(0, 0.2, (400, 50))
    rows = np.flatnonzero(probes < 50)
    scores[rows, probes[rows]] += 0.4
    order = np.argsort(-scores, axis=1)[:, :LIST_LENGTH]
    found = probe_outcomes(np.take_along_axis(scores, order, 1), gallery[order], probes, gallery)
    mated = probes < 50
    for point in open_set_points(found, ("0.05", "0.2")):
        alarms = (scores[~mated] >= point.threshold).any(axis=1).mean()
        assert alarms == point.fpir <= float(point.target)
        mate = scores[rows, probes[rows]]
        rank = 1 + (scores[rows] > mate[:, None]).sum(axis=1)
        assert point.tpir == pytest.approx(np.mean((mate >= point.threshold) & (rank <= LIST_LENGTH)))
        best_alone = scores[~mated].max(axis=1)
        next_alarm = best_alone[best_alone < point.threshold].max()
        assert (best_alone >= next_alarm).mean() > float(point.target), "no lower threshold would do"
    for limit, rate in rank_rates(found, (1, 5, 10)).items():
        rank = 1 + (scores[rows] > scores[rows, probes[rows]][:, None]).sum(axis=1)
        assert rate == pytest.approx(np.mean(rank <= limit))
