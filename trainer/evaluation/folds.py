"""Accuracy by cross-validated thresholds, as LFW defines it.

P pairs in file order, F folds, K distinct scores. A pair is called "same" if its score >= the threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ConfigError
from trainer.evaluation.roc import FloatArray

FOLDS = 10


@dataclass(frozen=True)
class FoldAccuracy:
    """Mean and standard deviation (over the folds, not of the mean) of the accuracy on the left-out fold."""

    mean: float
    std: float


def fold_numbers(same: NDArray[np.bool_], folds: int = FOLDS) -> NDArray[np.int64]:
    """Fold [P] of each pair: same pairs and different pairs are each cut into contiguous blocks in file order.

    Sets in LFW's layout (300 same, 300 different, ten times) get their official folds, and sets sorted by kind stay
    balanced. With fewer than ``folds`` pairs of either kind there are as many folds as pairs of that kind.

    Raises:
        ConfigError: fewer than 2 pairs of either kind.
    """
    positions = [np.flatnonzero(same), np.flatnonzero(~same)]
    count = min(folds, *(len(of_kind) for of_kind in positions))
    if count < 2:
        raise ConfigError(
            f"{len(positions[0])} same and {len(positions[1])} different pairs: folds need 2 of each; use a larger set"
        )
    numbers = np.empty(len(same), dtype=np.int64)
    for of_kind in positions:
        for number, block in enumerate(np.array_split(of_kind, count)):
            numbers[block] = number
    return numbers


def best_threshold(scores: FloatArray, same: NDArray[np.bool_]) -> float:
    """The threshold that calls the most pairs right; of equally good ones the strictest.

    Candidates are -inf, the midpoints between neighbouring distinct scores, and +inf: every possible decision.
    InsightFace searches the squared distances 0.00, 0.01, ... 3.99 instead. That step (0.005 in cosine) can miss the
    best decision, and within a gap it takes the strict end, not the middle; accuracies differ by a few pairs.
    """
    values, place = np.unique(scores, return_inverse=True)
    same_below = np.append(0, np.cumsum(np.bincount(place, weights=same, minlength=len(values))))
    all_below = np.append(0, np.cumsum(np.bincount(place, minlength=len(values))))
    right = (all_below - same_below) + (same_below[-1] - same_below)  # of candidate k: values[:k] rejected
    chosen = len(values) - int(np.argmax(right[::-1]))
    if chosen == 0:
        return -np.inf
    if chosen == len(values):
        return np.inf
    lower, upper = float(values[chosen - 1]), float(values[chosen])
    middle = lower + (upper - lower) / 2
    return middle if middle > lower else upper  # neighbouring floats have nothing between them


def fold_accuracy(scores: FloatArray, same: NDArray[np.bool_], folds: int = FOLDS) -> FoldAccuracy:
    """Each fold judged by the best threshold of all the others."""
    numbers = fold_numbers(same, folds)
    accuracies = []
    for number in range(int(numbers.max()) + 1):
        held_out = numbers == number
        threshold = best_threshold(scores[~held_out], same[~held_out])
        accuracies.append(np.mean((scores[held_out] >= threshold) == same[held_out]))
    return FoldAccuracy(float(np.mean(accuracies)), float(np.std(accuracies)))
