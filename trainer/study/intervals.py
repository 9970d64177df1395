"""From the scores of all seeds to accuracies with intervals, and to differences between losses.

S seeds, P pairs, R resamples. Every seed's network judges the same P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.folds import best_threshold, fold_numbers

RESAMPLES = 2000
LEVEL = 0.95
Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Interval:
    """A mean and where 95% of its bootstrap resamples lie. In fractions."""

    mean: float
    low: float
    high: float


def judged(scores: NDArray[np.floating], same: Right) -> Right:
    """[P]: whether each pair is called right by the best threshold of the other folds (LFW's protocol).

    Its mean is the 10-fold accuracy, to the rounding of folds of unequal size.
    """
    exact = scores.astype(np.float64)
    folds = fold_numbers(same)
    right = np.empty(len(same), dtype=np.bool_)
    for fold in range(int(folds.max()) + 1):
        held_out = folds == fold
        threshold = best_threshold(exact[~held_out], same[~held_out])
        right[held_out] = (exact[held_out] >= threshold) == same[held_out]
    return right


def interval(values: NDArray[np.floating] | Right) -> Interval:
    """Of the mean of ``values`` [S, P]: a two-level bootstrap, seeds with replacement and pairs with replacement.

    The pairs drawn are the same for all seeds, which all judge the same ones. Few seeds make it too narrow: with S of
    them the part that comes from training is on average (S - 1) / S of its variance. Pairs that share a person count
    as independent. Drawn by a generator of fixed seed: the same values give the same interval.
    """
    seeds, pairs = values.shape
    draw = np.random.default_rng(0)
    exact = values.T.astype(np.float64)
    means = np.empty(RESAMPLES)
    for at in range(RESAMPLES):  # one at a time: a table [R, P] of millions of pairs would take gigabytes
        weight = np.bincount(draw.integers(pairs, size=pairs), minlength=pairs) @ exact / pairs
        means[at] = weight[draw.integers(seeds, size=seeds)].mean()
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def difference(one: Sequence[Right], other: Sequence[Right]) -> Interval:
    """Of mean(one) - mean(other), seed by seed and pair by pair: both saw the same data, noise and pairs."""
    return interval(np.stack(one).astype(np.float64) - np.stack(other).astype(np.float64))
