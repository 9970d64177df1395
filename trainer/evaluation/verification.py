"""From the scores of pairs to a verification result. Pure numpy.

P pairs. A pair is accepted (called "same") if its score, a cosine, is >= the threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ConfigError
from trainer.evaluation.folds import best_threshold, fold_accuracy
from trainer.evaluation.roc import FloatArray, area_under, compute_roc, equal_error_rate, tar_at_far, thin_roc


@dataclass(frozen=True, eq=False)
class VerificationResult:
    """How well a model tells same from different pairs. Rates are fractions in [0, 1].

    name: of the pairs file.  pairs: P.  accuracy_mean, accuracy_std: over the folds.
    threshold: the cosine that separates all pairs best (the folds use their own).
    tar_at_far: by FAR ("1e-3"), None where there are too few different pairs to measure it.
    roc_far, roc_tar: at most 1000 points.  scores: [P] float32.  same: [P] bool.
    """

    name: str
    pairs: int
    accuracy_mean: float
    accuracy_std: float
    threshold: float
    auc: float
    equal_error_rate: float
    tar_at_far: dict[str, float | None]
    roc_far: FloatArray
    roc_tar: FloatArray
    scores: NDArray[np.float32]
    same: NDArray[np.bool_]


def verify(name: str, scores: NDArray[np.floating], same: NDArray[np.bool_]) -> VerificationResult:
    """Judge ``scores`` [P] against ``same`` [P].

    Scores are rounded to float32 first, so that the result can be computed again from what is stored.

    Raises:
        ConfigError: not one finite score for each pair, or fewer than 2 pairs of either kind.
    """
    if scores.shape != same.shape or scores.ndim != 1:
        raise ConfigError(f"pairs {name}: {scores.shape} scores for {same.shape} pairs; give one score for each pair")
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise ConfigError(
            f"pairs {name}: the score of {len(bad)} of {len(scores)} pairs (first: {bad[0]}) is {scores[bad[0]]}; "
            "the model's weights are not finite: take an earlier checkpoint or a lower learning rate"
        )
    kept = scores.astype(np.float32)
    exact = kept.astype(np.float64)
    try:
        accuracy = fold_accuracy(exact, same)
    except ConfigError as error:
        raise ConfigError(f"pairs {name}: {error}") from None
    roc = compute_roc(exact, same)
    far, tar = thin_roc(roc)
    # A finite number that decides like the best threshold: float32 scores have no neighbour within 1e-9.
    threshold = float(np.clip(best_threshold(exact, same), exact.min(), np.nextafter(exact.max(), np.inf)))
    return VerificationResult(
        name=name,
        pairs=len(same),
        accuracy_mean=accuracy.mean,
        accuracy_std=accuracy.std,
        threshold=threshold,
        auc=area_under(roc),
        equal_error_rate=equal_error_rate(roc),
        tar_at_far=tar_at_far(roc),
        roc_far=far,
        roc_tar=tar,
        scores=kept,
        same=same,
    )
