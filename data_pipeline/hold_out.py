"""Identities that leave the training set, and pairs of their images to verify on.

Shapes: P pairs, n images.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError

FOLDS = 10  # of a verification set, each with as many same as different pairs
_IDENTITIES_STREAM, _PAIRS_STREAM = 1, 2


@dataclass(frozen=True, eq=False, slots=True)
class HeldOut:
    """``identities`` held out; ``positions`` [2P] of the images of the pairs, pair after pair; ``same`` [P]."""

    identities: NDArray[np.int64]
    positions: NDArray[np.int64]
    same: NDArray[np.bool_]


def hold_out(identities: NDArray[np.int64], count: int, pairs: int, seed: int) -> HeldOut:
    """Choose ``count`` of ``identities`` [n] (negative: left out already) that have two images or more, and ``pairs``
    pairs of their images: ten folds, each with its same pairs first and as many different ones after. Same pairs are
    spread over the identities as evenly as these allow; no pair occurs twice.

    Raises:
        DataError: there are too few identities or images for that.
    """
    if count < 2 or pairs < 2 * FOLDS or pairs % (2 * FOLDS):
        raise DataError(
            f"{count} identities held out with {pairs} pairs: hold out at least 2, and give a multiple of "
            f"{2 * FOLDS} pairs, for {FOLDS} folds of as many same as different"
        )
    present, counts = np.unique(identities[identities >= 0], return_counts=True)
    several = present[counts >= 2]
    if len(several) < count:
        raise DataError(f"{len(several)} identities have two images or more: {count} cannot be held out")
    if len(present) == count:
        raise DataError(f"holding out all {count} identities leaves none to train on: hold out fewer")
    chosen = np.sort(np.random.default_rng([seed, _IDENTITIES_STREAM]).permutation(several)[:count])
    positions = np.flatnonzero(np.isin(identities, chosen))
    positions = positions[np.argsort(identities[positions], kind="stable")]
    groups = np.split(positions, np.flatnonzero(np.diff(identities[positions])) + 1)
    generator = np.random.default_rng([seed, _PAIRS_STREAM])
    same = _same_pairs(groups, pairs // 2, generator)
    different = _different_pairs(groups, pairs // 2, generator)
    folds = np.concatenate([same.reshape(FOLDS, -1), different.reshape(FOLDS, -1)], axis=1)
    flags = np.tile(np.repeat([True, False], pairs // (2 * FOLDS)), FOLDS)
    return HeldOut(chosen, folds.reshape(-1), flags)


def _same_pairs(groups: list[NDArray[np.int64]], wanted: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """[wanted, 2] positions of two images of one identity."""
    possible = np.array([len(group) * (len(group) - 1) // 2 for group in groups])
    if possible.sum() < wanted:
        raise DataError(
            f"the identities held out have {possible.sum()} pairs of images of the same identity but {wanted} are "
            "needed: hold out more identities or ask for fewer pairs"
        )
    order = generator.permutation(len(groups))
    found = []
    for place, quota in zip(order, _quotas(possible[order], wanted), strict=True):
        group = groups[place]
        for number in generator.choice(int(possible[place]), size=quota, replace=False).tolist():
            # Pairs (i, j), i < j, in the order (0, 1), (0, 2), (1, 2), (0, 3), ...
            j = (1 + math.isqrt(1 + 8 * number)) // 2
            found.append((group[number - j * (j - 1) // 2], group[j]))
    return generator.permutation(np.array(found, dtype=np.int64))


def _quotas(possible: NDArray[np.int64], wanted: int) -> list[int]:
    """``wanted`` spread over places that take at most ``possible`` each, as evenly as that allows."""
    quotas = np.zeros_like(possible)
    while wanted:
        open_places = np.flatnonzero(quotas < possible)
        share = max(wanted // len(open_places), 1)
        places = open_places[:wanted]
        taken = np.minimum(possible[places] - quotas[places], share)
        quotas[places] += taken
        wanted -= int(taken.sum())
    result: list[int] = quotas.tolist()
    return result


def _different_pairs(groups: list[NDArray[np.int64]], wanted: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """[wanted, 2] positions of images of two identities."""
    sizes = np.array([len(group) for group in groups])
    possible = (int(sizes.sum()) ** 2 - int((sizes**2).sum())) // 2
    if possible < wanted:
        raise DataError(
            f"the identities held out have {possible} pairs of images of different identities but {wanted} are "
            "needed: hold out more identities or ask for fewer pairs"
        )
    found: dict[tuple[int, int], None] = {}
    while len(found) < wanted:
        one = int(generator.integers(len(groups)))
        other = (one + int(generator.integers(1, len(groups)))) % len(groups)
        first, second = (int(groups[place][generator.integers(sizes[place])]) for place in (one, other))
        if (second, first) not in found:
            found[first, second] = None
    return np.array(list(found), dtype=np.int64)
