"""The geometry of identities on the sphere. Angles in radians.

n images of one identity, D embedding size, C identities, T rows of a tile.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TILE = 4096
ROUNDS = 20  # of 2-means: it seldom takes more than five
SMALLEST_GROUP = 3  # images of a second person: fewer are noise
SMALLEST_SHARE = 0.2


def unit(rows: Floats) -> Floats:
    """Rows brought to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    found: Floats = rows / np.maximum(lengths, 1e-12)
    return found


def angle(cosines: NDArray[np.floating]) -> Floats:
    """Of cosines, which rounding may have put a little above 1."""
    found: Floats = np.arccos(np.clip(cosines, -1.0, 1.0)).astype(np.float32)
    return found


def to_the_others(units: Floats) -> Floats:
    """[n]: angle of each image to the mean direction of the *other* images of its identity; NaN for a single one.

    An image pulls the mean of few towards itself; left out of it, it cannot hide.
    """
    if len(units) < 2:
        return np.full(len(units), np.nan, dtype=np.float32)
    others = unit(units.sum(axis=0, dtype=np.float64).astype(np.float32) - units)
    return angle(np.sum(others * units, axis=1))


@dataclass(frozen=True)
class Groups:
    """An identity's images in two groups. second: [n] bool, the smaller one. separation: angle between the groups'
    means. spread: of the smaller one, median angle of its images to the mean of its others.
    """

    second: NDArray[np.bool_]
    separation: float
    spread: float


def two_groups(units: Floats) -> Groups | None:
    """The images [n, D] of an identity in two groups, each of which could be a person; None where there are too few.

    Spherical 2-means. A group of fewer than 3 images, or of less than a fifth, or that is spread more than twice as
    wide as the other one, is no person but images that belong to nobody here: it is left out, and the rest looked at
    again. So an identity with a few wrong images is not taken for two people, nor do they hide a second one.
    """
    left = np.arange(len(units))
    while len(left) >= 2 * SMALLEST_GROUP:
        labels = _two_means(units[left])
        sizes = np.bincount(labels, minlength=2)
        small = int(np.argmin(sizes))
        spreads = [_spread(units[left][labels == group]) for group in (small, 1 - small)]
        if sizes[small] >= max(SMALLEST_GROUP, SMALLEST_SHARE * len(left)) and spreads[0] <= 2 * spreads[1]:
            second = np.zeros(len(units), dtype=np.bool_)
            second[left[labels == small]] = True
            one, other = (_mean(units[left][labels == group]) for group in (0, 1))
            return Groups(second, float(angle(np.sum(one * other))), spreads[0])
        if sizes[small] == 0:  # all images are the same
            return None
        left = left[labels != small]
    return None


def halves(units: Floats) -> float:
    """Angle between the means of every other image and of the rest, of n >= 2 images: how well n images know their
    mean. NaN for fewer.
    """
    if len(units) < 2:
        return float("nan")
    return float(angle(np.sum(_mean(units[::2]) * _mean(units[1::2]))))


def in_scatters(between: Floats, one: Floats, other: Floats) -> Floats:
    """The angle between the means of two sets of images over what it would be if both were of one person.

    one, other: angle of the halves of each. The mean of n images has a variance of s^2/n, each of its halves of
    2 s^2/n, so halves of one set are h^2 = 4 s^2/n apart and the means of two sets (h_1^2 + h_2^2) / 4: around 1 for
    one person in two sets, however many images each has and however far those lie from each other.
    """
    expected = np.sqrt((one.astype(np.float64) ** 2 + other.astype(np.float64) ** 2) / 4)
    found: Floats = (between / np.maximum(expected, 1e-3)).astype(np.float32)
    return found


def _two_means(units: Floats) -> NDArray[np.int64]:
    """[n] 0 or 1: begun with the pair that is farthest apart, so without randomness."""
    cosines = units @ units[:TILE].T
    one, other = np.unravel_index(int(np.argmin(cosines)), cosines.shape)
    means = np.stack([units[one], units[other]])
    labels = np.zeros(len(units), dtype=np.int64)
    for _ in range(ROUNDS):
        now: NDArray[np.int64] = np.argmax(units @ means.T, axis=1)
        if now.min() == now.max() or np.array_equal(now, labels):
            return now
        labels = now
        means = np.stack([_mean(units[labels == 0]), _mean(units[labels == 1])])
    return labels


def _mean(units: Floats) -> Floats:
    return unit(units.sum(axis=0))


def _spread(units: Floats) -> float:
    return float(np.median(to_the_others(units))) if len(units) > 1 else float("inf")


def nearest_other(
    rows: Floats, directions: Floats, own: NDArray[np.int64], *, also: NDArray[np.int64] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[NDArray[np.int64], Floats]:  # fmt: skip
    """Of each row [n, D], the nearest of ``directions`` [C, D] that is not number ``own`` [n] (nor ``also`` [n], where
    that is not -1): its number [n] (-1: there is none) and its angle [n]. In tiles: never an [n, C] table.
    """
    best = np.full(len(rows), -2.0, dtype=np.float32)
    where = np.full(len(rows), -1, dtype=np.int64)
    on_device = torch.from_numpy(rows).to(device)
    for start in range(0, len(directions), TILE):
        tile = torch.from_numpy(directions[start : start + TILE]).to(device)
        cosines = (on_device @ tile.T).cpu().numpy()
        for excluded in (own, also):
            if excluded is not None:
                here = np.flatnonzero((excluded >= start) & (excluded < start + len(tile)))
                cosines[here, excluded[here] - start] = -2.0
        place = cosines.argmax(axis=1)
        found = cosines[np.arange(len(rows)), place]
        better = found > best
        best[better], where[better] = found[better], start + place[better]
    return where, np.where(where >= 0, angle(best), np.float32(np.nan)).astype(np.float32)
