"""Confidence intervals by drawing identities, not pairs. Pure numpy.

Pairs of one person go wrong together, so pairs are no independent sample: intervals from drawing pairs are too narrow.
Drawn are the I identities of the set, I times with replacement; an identity drawn w times counts w times:

    weight of a same pair (i, i)       = w_i
    weight of a different pair (i, j)  = w_i w_j

and every rate is computed again from the weighted pairs, its threshold included. The interval lies between the
percentiles of R such replicates. This is the vertex bootstrap of Fogliato, Patil and Perona, Confidence Intervals for
Error Rates in 1:1 Matching Tasks, IJCV 2024 (arXiv 2306.01198); Bolle, Ratha and Pankanti, Error analysis of pattern
recognition systems: the subsets bootstrap, CVIU 2004, is its forerunner.

P pairs, I identities, F folds, R replicates.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.roc import FloatArray

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class PairSample:
    """Scored pairs and whose they are.

    scores: [P] float64.  same: [P] bool.  first, second: [P] identities in [0, identities).
    folds: [P] fold of each pair, None where accuracy is not asked for.
    """

    scores: FloatArray
    same: NDArray[np.bool_]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    identities: int
    folds: NDArray[np.int64] | None = None


def identity_weights(identities: int, seed: int, replicate: int) -> NDArray[np.int64]:
    """How often each identity is drawn in a replicate, [I]: a function of (seed, replicate) alone."""
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, replicate]))
    drawn = generator.integers(0, identities, size=identities)
    return np.bincount(drawn, minlength=identities)


class PairBootstrap:
    """Replicates of the rates of one ``PairSample``; scores are sorted once.

    whole: up to how many pairs everything is counted. Of more, without folds, only the highest scores are, down to a
    false accept rate of one half: the rates lie there, and where a replicate's do not, it is counted whole after all.
    """

    def __init__(self, sample: PairSample, targets: Sequence[str], *, seed: int, whole: int = 1 << 20) -> None:
        self._targets = tuple(targets)
        self._seed = seed
        order = np.argsort(-sample.scores, kind="stable")
        self._sample = PairSample(
            sample.scores[order],
            sample.same[order],
            sample.first[order],
            sample.second[order],
            sample.identities,
            None if sample.folds is None else sample.folds[order],
        )
        falling = self._sample.scores
        self._ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
        self._head = len(falling)
        if sample.folds is None and len(falling) > whole:
            accepted = np.cumsum(~self._sample.same)
            half = int(np.searchsorted(accepted, accepted[-1] / 2))
            self._head = int(self._ends[np.searchsorted(self._ends, half)]) + 1

    def replicate(self, number: int) -> dict[str, float]:
        """The rates of one replicate: "far 1e-3" -> TAR there, "equal_error_rate", "accuracy_mean".

        NaN where the identities drawn have no pair of one kind.
        """
        sample = self._sample
        drawn = identity_weights(sample.identities, self._seed, number)
        if self._head < len(sample.same):
            found = self._of_head(drawn)
            if found is not None:
                return found
        return self.rates(_weights(sample, drawn, len(sample.same)))

    def rates(self, weight: FloatArray) -> dict[str, float]:
        """The rates of the sample whose pairs, scores falling, count ``weight`` [P] times."""
        same = self._sample.same
        accepted_same = np.append(0.0, np.cumsum(weight * same)[self._ends])
        accepted_different = np.append(0.0, np.cumsum(weight * ~same)[self._ends])
        if not accepted_same[-1] or not accepted_different[-1]:
            names = [*(f"far {target}" for target in self._targets), "equal_error_rate"]
            return dict.fromkeys(names + ["accuracy_mean"] * (self._sample.folds is not None), float("nan"))
        found = self._read_off(accepted_same / accepted_same[-1], accepted_different / accepted_different[-1])
        if self._sample.folds is not None:
            found["accuracy_mean"] = self._accuracy(weight, self._sample.folds)
        return found

    def _of_head(self, drawn: NDArray[np.int64]) -> dict[str, float] | None:
        """The rates of a draw from the highest scores alone; None where they reach further down."""
        sample, head = self._sample, self._head
        same, rest = sample.same, slice(head, None)
        weight = _weights(sample, drawn, head)
        ends = self._ends[: np.searchsorted(self._ends, head)]
        accepted_same = np.append(0.0, np.cumsum(weight * same[:head])[ends])
        accepted_different = np.append(0.0, np.cumsum(weight * ~same[:head])[ends])
        once, both = drawn[sample.first[rest]], drawn[sample.second[rest]]
        below_same = int(once[same[rest]].sum())
        below_different = int(np.dot(once, both)) - int(np.dot(once[same[rest]], both[same[rest]]))
        total_same, total_different = accepted_same[-1] + below_same, accepted_different[-1] + below_different
        if not total_same or not total_different:
            return None
        tar, far = accepted_same / total_same, accepted_different / total_different
        if far[-1] <= max(map(float, self._targets), default=0.0) or far[-1] + tar[-1] < 1.0:
            return None
        return self._read_off(tar, far)

    def _read_off(self, tar: FloatArray, far: FloatArray) -> dict[str, float]:
        found = {
            f"far {target}": float(tar[np.searchsorted(far, float(target), side="right") - 1])
            for target in self._targets
        }
        after = int(np.argmax(far + tar >= 1.0))
        rise = far[after] + tar[after] - far[after - 1] - tar[after - 1]
        part = (1.0 - far[after - 1] - tar[after - 1]) / rise
        found["equal_error_rate"] = float(far[after - 1] + part * (far[after] - far[after - 1]))
        return found

    def _accuracy(self, weight: FloatArray, folds: NDArray[np.int64]) -> float:
        """Mean over the folds that have any weight, each judged by the best threshold of the others."""
        same, ends = self._sample.same, self._ends
        signed = np.where(same, weight, -weight)
        accuracies = []
        for fold in range(int(folds.max()) + 1):
            inside = folds == fold
            total = float(weight[inside].sum())
            if not total:
                continue
            # Accepting one more score gains its same pairs and loses its different ones.
            gain = np.append(0.0, np.cumsum(np.where(inside, 0.0, signed))[ends])
            accepted = int(np.argmax(gain))
            stop = 0 if not accepted else int(ends[accepted - 1]) + 1
            right = weight[:stop][inside[:stop] & same[:stop]].sum() + weight[stop:][inside[stop:] & ~same[stop:]].sum()
            accuracies.append(float(right) / total)
        return float(np.mean(accuracies))


def _weights(sample: PairSample, drawn: NDArray[np.int64], head: int) -> FloatArray:
    """How often each of the first ``head`` pairs counts."""
    once = drawn[sample.first[:head]]
    both = once * drawn[sample.second[:head]]
    weight: FloatArray = np.where(sample.same[:head], once, both).astype(np.float64)
    return weight


def weighted_share(hits: NDArray[np.integer], trials: NDArray[np.integer], weights: NDArray[np.int64]) -> float:
    """sum w_i hits_i / sum w_i trials_i, [I] each; NaN without trials."""
    total = float(np.dot(weights, trials))
    return float(np.dot(weights, hits)) / total if total else float("nan")


def share_interval(
    hits: NDArray[np.integer], trials: NDArray[np.integer], *, replicates: int, confidence: float, seed: int
) -> Interval | None:
    """Interval of sum hits / sum trials, hits and trials being of each identity: [I]."""
    kept = [
        {"": weighted_share(hits, trials, identity_weights(len(hits), seed, number))} for number in range(replicates)
    ]
    return percentile_intervals(kept, confidence).get("")


def percentile_intervals(replicates: Iterable[Mapping[str, float]], confidence: float) -> dict[str, Interval]:
    """Of each rate the percentiles (1 -+ confidence) / 2 over the replicates, those that are NaN left out.

    A rate that is NaN in more than a tenth of the replicates, or that has fewer than two, gets no interval.
    """
    gathered = list(replicates)
    intervals = {}
    for name in gathered[0] if gathered else ():
        values = np.array([each[name] for each in gathered])
        values = values[~np.isnan(values)]
        if len(values) >= max(2, 0.9 * len(gathered)):
            low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
            intervals[name] = (float(low), float(high))
    return intervals
