"""The exact ROC of scored pairs and what is read off it.

P pairs, of which n_same and n_different;  K distinct scores.  A pair is accepted if its score >= the threshold.

    TAR(t) = accepted same pairs / n_same            true accept rate
    FAR(t) = accepted different pairs / n_different  false accept rate
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FAR_TARGETS = ("1e-1", "1e-2", "1e-3", "1e-4")
THINNED_POINTS = 1000

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Roc:
    """The curve from (0, 0) to (1, 1), one point for each distinct score, thresholds falling.

    far, tar: [K + 1], both rising. different: n_different, which limits how small a FAR can be measured.
    """

    far: FloatArray
    tar: FloatArray
    different: int


def compute_roc(scores: FloatArray, same: NDArray[np.bool_]) -> Roc:
    """The ROC of ``scores`` [P] and ``same`` [P], with at least one pair of either kind; equal scores move together."""
    order = np.argsort(-scores, kind="stable")
    falling, is_same = scores[order], same[order]
    ends = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    accepted_same = np.append(0, np.cumsum(is_same)[ends])
    accepted_different = np.append(0, ends + 1) - accepted_same
    different = int(accepted_different[-1])
    return Roc(accepted_different / different, accepted_same / accepted_same[-1], different)


def area_under(roc: Roc) -> float:
    """AUC = P(score of a same pair > score of a different pair) + P(equal) / 2, the trapezoids under the curve."""
    return float(np.sum(np.diff(roc.far) * (roc.tar[1:] + roc.tar[:-1]) / 2))


def equal_error_rate(roc: Roc) -> float:
    """The rate at which FAR = 1 - TAR, on the straight line between the two neighbouring points."""
    surplus = roc.far + roc.tar - 1.0  # rises from -1 to 1
    after = int(np.argmax(surplus >= 0.0))
    before = after - 1
    part = -surplus[before] / (surplus[after] - surplus[before])
    return float(roc.far[before] + part * (roc.far[after] - roc.far[before]))


def tar_at_far(roc: Roc, targets: tuple[str, ...] = FAR_TARGETS) -> dict[str, float | None]:
    """The highest TAR whose FAR does not exceed each target; no interpolation.

    None where a target is not measurable: a single accepted pair would already exceed it (1 / n_different > FAR).
    """
    rates: dict[str, float | None] = {}
    for target in targets:
        # Compared as FAR: k / n is the double nearest to that fraction, so 1 / 1000 equals 1e-3, without allowance.
        limit = float(target)
        rates[target] = float(roc.tar[roc.far <= limit][-1]) if 1 / roc.different <= limit else None
    return rates


def thin_roc(roc: Roc, points: int = THINNED_POINTS) -> tuple[FloatArray, FloatArray]:
    """Far and tar of at most ``points`` points that draw the same curve.

    Points on a straight horizontal or vertical run go first, which changes nothing. If more corners than ``points``
    are left, those at even steps of log FAR (a quarter of them) and of FAR + TAR are kept, and both ends.
    """
    far, tar = roc.far, roc.tar
    inside = ((far[1:-1] == far[:-2]) & (far[2:] == far[1:-1])) | ((tar[1:-1] == tar[:-2]) & (tar[2:] == tar[1:-1]))
    corners = np.flatnonzero(np.concatenate(([True], ~inside, [True])))
    far, tar = far[corners], tar[corners]
    if len(far) <= points:
        return far, tar
    on_log_scale = points // 4
    even_log = np.geomspace(1.0 / roc.different, 1.0, on_log_scale) * (1.0 + 1e-9)
    even_arc = np.linspace(0.0, 2.0, points - on_log_scale)
    kept = np.unique(
        np.concatenate(
            (
                np.searchsorted(far, even_log, side="right") - 1,  # the highest TAR at this FAR
                np.searchsorted(far + tar, even_arc, side="left").clip(max=len(far) - 1),
            )
        )
    )
    return far[kept], tar[kept]
