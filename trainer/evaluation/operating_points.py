"""Thresholds for chosen false accept rates, from scores: of the evaluation and of exported files. Exact; pure numpy.

P pairs. A pair is accepted if its score >= the threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.roc import FloatArray

JANUS_TARGETS = ("1e-6", "1e-5", "1e-4", "1e-3", "1e-2", "1e-1")


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does to the pairs it was taken from.

    target: the false accept rate asked for, as written ("1e-4").  far: the one reached, at most the target.
    tar: true accept rate there.  false_accepts: how many different pairs are accepted; under some 30 of them a rate is
    a guess (Doddington's rule of 30).  tar_error: by how much tar may be too low, where scores were counted in bins
    (see ``score_histogram``); 0 where they were not.  threshold, far, tar are None where the rate cannot be measured:
    a single false accept would exceed it.
    """

    target: str
    threshold: float | None
    far: float | None
    tar: float | None
    false_accepts: int
    tar_error: float = 0.0


def unmeasurable(target: str) -> OperatingPoint:
    """The point of a rate below 1 / different pairs."""
    return OperatingPoint(target, None, None, None, 0)


def operating_points(scores: FloatArray, same: NDArray[np.bool_], targets: Sequence[str]) -> list[OperatingPoint]:
    """For each target the lowest threshold whose FAR does not exceed it: the highest TAR, no interpolation.

    scores, same: [P], at least one pair of either kind. The threshold is that of ``threshold_above`` the highest score
    that must be rejected.
    TAR and FAR: Mansfield and Wayman, Best Practices in Testing and Reporting Performance of Biometric Devices, 2002
    (there 1 - FNMR and FMR); the IJB papers call them TAR and FAR, too.
    """
    different = np.sort(scores[~same])[::-1]
    genuine = np.sort(scores[same])
    found = []
    for target in targets:
        limit = float(target)
        if 1 / len(different) > limit:
            found.append(unmeasurable(target))
            continue
        allowed = most_allowed(len(different), limit)
        if allowed == len(different):
            threshold = float(min(different[-1], genuine[0]))
        else:
            threshold = threshold_above(float(different[allowed]), scores)
        accepted = int(np.count_nonzero(different >= threshold))
        missed = int(np.searchsorted(genuine, threshold, side="left"))
        found.append(OperatingPoint(target, threshold, accepted / len(different), 1 - missed / len(genuine), accepted))
    return found


def most_allowed(count: int, limit: float) -> int:
    """The most k with k / count <= limit, compared as the quotient that is reported: 1 / 1000 equals 1e-3."""
    allowed = min(int(limit * count) + 1, count)
    while allowed / count > limit:
        allowed -= 1
    return allowed


def threshold_above(rejected: float, scores: FloatArray) -> float:
    """Halfway between the score ``rejected`` and the next higher one of ``scores``, so that the rounding of another
    program changes no decision; just above ``rejected`` where no score is higher, or no float lies between.

    What scores exactly like a rejected pair is rejected too.
    """
    higher = scores[scores > rejected]
    halfway = (float(higher.min()) + rejected) / 2 if len(higher) else rejected
    return halfway if halfway > rejected else float(np.nextafter(rejected, np.inf))
