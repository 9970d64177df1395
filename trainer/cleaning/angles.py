"""The geometry of identities on the sphere. Angles in radians.

n images of one identity, D embedding size, C identities, T rows of a tile.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TILE = 4096


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
class Halves:
    """An identity's images in two groups. second: [n] bool, the smaller one. separation: angle between the groups'
    means. spread: of the smaller one, median angle of its images to the mean of its others; NaN below two images.
    """

    second: NDArray[np.bool_]
    separation: float
    spread: float


def two_groups(units: Floats, *, rounds: int = 20) -> Halves:
    """Spherical 2-means of n >= 2 images, begun with the pair that is farthest apart; no randomness.

    Two people in one folder: two groups whose means are far apart and which hold together, each in itself.
    """
    cosines = units @ units.T if len(units) <= TILE else units @ units[:TILE].T
    one, other = np.unravel_index(int(np.argmin(cosines)), cosines.shape)
    means = np.stack([units[one], units[other]])
    groups = np.zeros(len(units), dtype=np.int64)
    for _ in range(rounds):
        now = np.argmax(units @ means.T, axis=1)
        if now.min() == now.max():  # all in one: no two groups
            break
        changed = bool(np.any(now != groups))
        groups = now
        means = unit(np.stack([units[groups == 0].mean(axis=0), units[groups == 1].mean(axis=0)]))
        if not changed:
            break
    second = groups == (1 if 2 * np.count_nonzero(groups) <= len(groups) else 0)
    of_second = to_the_others(units[second])
    spread = float(np.median(of_second)) if len(of_second) > 1 else float("nan")
    return Halves(second, float(angle(np.sum(means[0] * means[1]))), spread)


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
