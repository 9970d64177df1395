"""Which identities look merged, split or noisy, by fences that the run's own statistics give.

A fence is Tukey's: of values with quartiles Q1, Q3 it is Q3 + k (Q3 - Q1).
Quartiles do not move for errors in less than a quarter of the identities, so no threshold depends on how bad, or how
well trained, a network is. k (``strictness``, 1.5 as usual): larger ones find less and err less.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.cleaning.angles import Floats
from trainer.cleaning.survey import Survey, Whole

FEWEST = 8  # identities of 8 images or more, for quartiles of their likeness
LIKENESS = 1.5  # where there are not so many


@dataclass(frozen=True)
class Threshold:
    """value: an angle in radians, or, of split identities, a ratio of angles; and in words where it comes from."""

    value: float
    reason: str


@dataclass(frozen=True)
class Merged:
    """Two people in one folder. number: of the identity. score: separation over its threshold. images: positions of
    the smaller group. as_far_as: the angle between their means.
    """

    number: int
    score: float
    as_far_as: float
    images: Whole


@dataclass(frozen=True)
class Split:
    """One person in two folders. keep, other: numbers; keep has more images. score: threshold over likeness."""

    keep: int
    other: int
    score: float
    angle: float


@dataclass(frozen=True)
class Wrong:
    """An image that looks like somebody else's. place: in the survey. score: how much nearer the other is (rad).

    moves: whether it may be moved there; else it belongs to nobody known.
    """

    place: int
    score: float
    moves: bool


@dataclass(frozen=True, eq=False)
class Suspicions:
    """Each list by score, worst first. thresholds: by name, for people."""

    merged: list[Merged]
    split: list[Split]
    wrong: list[Wrong]
    thresholds: dict[str, Threshold]


def suspect(found: Survey, *, strictness: float = 1.5) -> Suspicions:
    """Look through a survey. An identity of fewer than 6 images is never called merged: it cannot hold two groups."""
    own_fence = _fence(found.own, strictness)
    separation_fence = _fence(found.separation, strictness)
    spread_fence = _fence(found.spread, strictness)
    apart = _quantile(found.neighbour_angle, 0.05)
    thresholds = {
        "merged": Threshold(
            max(separation_fence, apart),
            "the two groups of an identity's images are farther apart than the upper fence of all identities' "
            "separations, and than the 5% nearest neighbours; the smaller one holds together as identities do",
        ),
        "split": Threshold(
            _likeness_fence(found.own_likeness, strictness),
            "two identities' means are each other's nearest, and as near (in units of what their own scatter lets "
            "expect of one person, 1) as the means of two halves of one identity are",
        ),
        "wrong": Threshold(
            max(0.0, _fence(found.own - found.nearest_angle, strictness)),
            "an image is so much farther from the mean of its identity's other images than from another identity's "
            "mean: the upper fence of such differences, at least 0",
        ),
        "moves": Threshold(
            own_fence,
            "a wrong image may be moved (--noisy move) to the identity whose mean is nearest if the nearest trained "
            "center is that identity's, too, and it would not lie farther from the mean than this fence",
        ),
    }
    split = _split(found, thresholds["split"].value)
    merged = _merged(found, thresholds["merged"].value, spread_fence)
    wrong = _wrong(found, thresholds["wrong"].value, thresholds["moves"].value, merged, split)
    return Suspicions(merged, split, wrong, thresholds)


def _merged(found: Survey, threshold: float, spread_fence: float) -> list[Merged]:
    is_one = (found.separation > threshold) & (found.second_spread <= spread_fence)
    suspects = []
    for number in np.flatnonzero(is_one).tolist():
        here = found.images_of(number)
        images = found.positions[here][found.second[here]]
        separation = float(found.separation[number])
        suspects.append(Merged(number, separation / threshold, separation, images))
    return sorted(suspects, key=lambda each: (-each.score, each.number))


def _split(found: Survey, threshold: float) -> list[Split]:
    numbers = np.arange(len(found.identities))
    mutual = (found.neighbour >= 0) & (found.neighbour[found.neighbour] == numbers) & (numbers < found.neighbour)
    suspects = []
    for number in np.flatnonzero(mutual & (found.likeness < threshold)).tolist():
        other = int(found.neighbour[number])
        keep, leaves = (number, other) if found.counts[number] >= found.counts[other] else (other, number)
        score = threshold / max(float(found.likeness[number]), 1e-3)
        suspects.append(Split(keep, leaves, score, float(found.neighbour_angle[number])))
    return sorted(suspects, key=lambda each: (-each.score, each.keep))


def _wrong(found: Survey, threshold: float, moves: float, merged: list[Merged], split: list[Split]) -> list[Wrong]:
    person = np.arange(len(found.identities))
    for each in split:
        person[each.other] = each.keep
    told = np.zeros(len(found.owner), dtype=np.bool_)
    for one in merged:  # far from the mean of both: neither group's images are wrong for that
        told[found.images_of(one.number)] = True
    is_wrong: NDArray[np.bool_] = (
        (found.nearest >= 0)
        & (found.own - found.nearest_angle > threshold)
        & (person[found.nearest] != person[found.owner])
        & ~told
    )
    may_move = (found.nearest_angle <= moves) & (found.center_of == found.nearest)
    suspects = [
        Wrong(place, float(found.own[place] - found.nearest_angle[place]), bool(may_move[place]))
        for place in np.flatnonzero(is_wrong).tolist()
    ]
    return sorted(suspects, key=lambda each: (-each.score, each.place))


def _quantile(values: Floats, share: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, share)) if len(known) else float("inf")


def _fence(values: Floats, strictness: float) -> float:
    """The upper one; infinity where nothing is known."""
    low, high = _quantile(values, 0.25), _quantile(values, 0.75)
    return high + strictness * (high - low) if np.isfinite(high) else high


def _likeness_fence(own: Floats, strictness: float) -> float:
    """Of what is still one person: Q3 + (2 - k) (Q3 - Q1), so Q3 and half a range more at k = 1.5, less at larger k."""
    if np.count_nonzero(np.isfinite(own)) < FEWEST:
        return LIKENESS - (strictness - 1.5)
    low, high = _quantile(own, 0.25), _quantile(own, 0.75)
    return high + (2.0 - strictness) * (high - low)
