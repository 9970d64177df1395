"""Identification with and without strangers among the probes, from the candidates of each probe. Pure numpy.

Definitions, of Grother and Ngan (NIST IR 8009, FRVT 2014) and the IJB papers (Whitelam et al., CVPRW 2017; Maze et al.,
ICB 2018). A probe is mated if its subject is enrolled in the gallery.

    rank of a probe        1 + candidates of other subjects that score as high as its best mate or higher
    rank-R rate            share of the mated probes of rank <= R                        (closed set)
    FPIR(t)                share of the non-mated probes with any candidate >= t         (open set)
    TPIR(t) = 1 - FNIR(t)  share of the mated probes whose mate scores >= t and has rank <= L

L = 20 is the length of a candidate list there. P probes, K >= L candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.operating_points import most_allowed, threshold_above
from trainer.evaluation.roc import FloatArray

LIST_LENGTH = 20
RANKS = (1, 5, 10)
FPIR_TARGETS = ("0.01", "0.1")


@dataclass(frozen=True, eq=False)
class ProbeOutcomes:
    """What came of each probe against one gallery.

    mated: [P] bool.  rank: [P] of its mate; K + 1 where the mate is not among the candidates, or there is none.
    mate: [P] score of its mate, -inf where it is not among the candidates.  top: [P] score of the best candidate.
    """

    mated: NDArray[np.bool_]
    rank: NDArray[np.int64]
    mate: FloatArray
    top: FloatArray


@dataclass(frozen=True)
class OpenSetPoint:
    """target: the FPIR asked for. threshold, fpir, tpir: None where no such FPIR can be measured."""

    target: str
    threshold: float | None
    fpir: float | None
    tpir: float | None
    false_positives: int


def probe_outcomes(
    scores: NDArray[np.floating],
    candidates: NDArray[np.int64],
    probe_subjects: NDArray[np.int64],
    enrolled: NDArray[np.int64],
) -> ProbeOutcomes:
    """scores: [P, K], falling.  candidates: [P, K] subject of each candidate.  probe_subjects: [P].
    enrolled: subjects of the gallery.
    """
    exact: FloatArray = scores.astype(np.float64)
    right = (candidates == probe_subjects[:, None]) & (exact > -np.inf)
    found = right.any(axis=1)
    first = right.argmax(axis=1)
    mate = np.where(found, exact[np.arange(len(exact)), first], -np.inf)
    ahead = ((exact >= mate[:, None]) & (candidates != probe_subjects[:, None])).sum(axis=1)
    rank = np.where(found, 1 + ahead, scores.shape[1] + 1)
    return ProbeOutcomes(np.isin(probe_subjects, enrolled), rank, mate, exact[:, 0])


def rank_rates(outcomes: ProbeOutcomes, ranks: Sequence[int] = RANKS) -> dict[int, float]:
    """Rank-R rate of the mated probes for each R: the cumulative match characteristic."""
    rank = outcomes.rank[outcomes.mated]
    return {limit: float(np.mean(rank <= limit)) for limit in ranks}


def open_set_points(outcomes: ProbeOutcomes, targets: Sequence[str] = FPIR_TARGETS) -> list[OpenSetPoint]:
    """For each FPIR the lowest threshold that keeps it: a stranger who scores exactly like one that must be turned
    away is turned away too.
    """
    strangers = np.sort(outcomes.top[~outcomes.mated])[::-1]
    scores = np.append(strangers, outcomes.mate[outcomes.mated])
    found = []
    for target in targets:
        limit = float(target)
        if not len(strangers) or not outcomes.mated.any() or 1 / len(strangers) > limit:
            found.append(OpenSetPoint(target, None, None, None, 0))
            continue
        allowed = most_allowed(len(strangers), limit)
        threshold = (
            float(strangers[-1]) if allowed == len(strangers) else threshold_above(float(strangers[allowed]), scores)
        )
        accepted = int(np.count_nonzero(strangers >= threshold))
        tpir = float(np.mean(identified(outcomes, threshold)[outcomes.mated]))
        found.append(OpenSetPoint(target, threshold, accepted / len(strangers), tpir, accepted))
    return found


def identified(outcomes: ProbeOutcomes, threshold: float) -> NDArray[np.bool_]:
    """Probes [P] whose mate scores at least ``threshold`` and is among the first ``LIST_LENGTH``."""
    return (outcomes.mate >= threshold) & (outcomes.rank <= LIST_LENGTH)


def open_set_curve(outcomes: ProbeOutcomes, points: int = 1000) -> tuple[FloatArray, FloatArray]:
    """FPIR and FNIR [n], thresholds falling, at every stranger's best score or ``points`` of them evenly in rank.

    n = 0 where all probes are mated, or none is.
    """
    strangers = np.sort(outcomes.top[~outcomes.mated])[::-1]
    if not len(strangers) or not outcomes.mated.any():
        return np.empty(0), np.empty(0)
    places = np.unique(np.linspace(0, len(strangers) - 1, min(points, len(strangers))).round().astype(np.int64))
    mates = np.sort(np.where(outcomes.rank <= LIST_LENGTH, outcomes.mate, -np.inf)[outcomes.mated])
    fpir = np.searchsorted(-strangers, -strangers[places], side="right") / len(strangers)
    fnir = np.searchsorted(mates, strangers[places], side="left") / len(mates)
    return fpir, fnir
