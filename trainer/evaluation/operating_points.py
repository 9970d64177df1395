"""Thresholds for chosen false accept rates, from the scores of listed pairs. Exact; pure numpy.

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

    scores, same: [P], at least one pair of either kind. The threshold is the float just above the highest score that
    must be rejected, so a pair that scores exactly like a rejected one is rejected too.
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
        # The most k with k / n <= limit, compared as the quotient that is reported: 1 / 1000 equals 1e-3.
        allowed = min(int(limit * len(different)) + 1, len(different))
        while allowed / len(different) > limit:
            allowed -= 1
        if allowed == len(different):
            threshold = float(min(different[-1], genuine[0]))
        else:
            threshold = float(np.nextafter(different[allowed], np.inf))
        accepted = int(np.count_nonzero(different >= threshold))
        missed = int(np.searchsorted(genuine, threshold, side="left"))
        found.append(OperatingPoint(target, threshold, accepted / len(different), 1 - missed / len(genuine), accepted))
    return found
