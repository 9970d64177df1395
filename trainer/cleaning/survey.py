"""Angle statistics of every identity and image, from the embeddings of one pass.

M usable images in order of their identities, C identities that have some, D embedding size. Memory: two tables [C, D],
a few numbers an image, and the images of one identity.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.cleaning.angles import Floats, angle, nearest_other, to_the_others, two_groups, unit
from trainer.cleaning.embedding_pass import Half

Whole = NDArray[np.int64]
WINDOW = 16384  # images whose nearest other identity is looked for together
FAR = 3.0 * 1.4826  # median absolute deviations, scaled to a normal distribution's standard deviation


@dataclass(frozen=True, eq=False)
class Survey:
    """Angles in radians.

    Of images: positions [M] in the data set; owner [M], number of the identity in ``identities``; own [M], angle to
    the mean of the identity's other images; own_center [M], to the identity's trained center; nearest [M], number of
    the identity (neither the own nor its nearest) whose mean is nearest, and nearest_angle [M]; nearest_center [M],
    angle to the nearest other trained center.
    Of identities: identities [C], counts [C], spread [C], the median of ``own``; mean_to_center [C]; neighbour [C],
    number of the identity whose mean is nearest, and neighbour_angle [C]; separation [C], second_count [C],
    second_spread [C]: of its two groups; second [M], whether an image is in the smaller one.
    """

    positions: Whole
    owner: Whole
    own: Floats
    own_center: Floats
    nearest: Whole
    nearest_angle: Floats
    nearest_center: Floats
    second: NDArray[np.bool_]
    identities: Whole
    counts: Whole
    spread: Floats
    mean_to_center: Floats
    neighbour: Whole
    neighbour_angle: Floats
    separation: Floats
    second_count: Whole
    second_spread: Floats

    def images_of(self, number: int) -> slice:
        """Where the images of identity ``number`` lie."""
        begin, end = np.searchsorted(self.owner, [number, number + 1])
        return slice(int(begin), int(end))


def survey(
    embeddings: Half, positions: Whole, identities: Whole, centers: torch.Tensor, *, device: torch.device
) -> Survey:
    """embeddings: [all, D], NaN where an image is not usable. positions, identities: [all], of its rows; identities
    ascending. centers: [classes, D], as trained.
    """
    usable = np.concatenate(
        [np.isfinite(embeddings[at : at + WINDOW, 0]) for at in range(0, len(embeddings), WINDOW)]
        or [np.empty(0, dtype=np.bool_)]
    )
    rows = np.flatnonzero(usable)
    present, owner, counts = np.unique(identities[rows], return_inverse=True, return_counts=True)
    starts = np.append(0, np.cumsum(counts))
    of_center = unit(centers[torch.from_numpy(present)].numpy())
    means = np.zeros((len(present), embeddings.shape[1]), dtype=np.float32)
    own, own_center = (np.full(len(rows), np.nan, dtype=np.float32) for _ in range(2))
    second = np.zeros(len(rows), dtype=np.bool_)
    spread, separation, second_spread = (np.full(len(present), np.nan, dtype=np.float32) for _ in range(3))
    for number in range(len(present)):
        here = slice(starts[number], starts[number + 1])
        units = unit(embeddings[rows[here]].astype(np.float32))
        own[here] = to_the_others(units)
        own_center[here] = angle(units @ of_center[number])
        means[number] = _robust_mean(units, own[here])
        if len(units) < 2:
            continue
        spread[number] = np.median(own[here])
        groups = two_groups(units)
        if groups is not None:
            second[here] = groups.second
            separation[number], second_spread[number] = groups.separation, groups.spread
    numbers = np.arange(len(present))
    neighbour, neighbour_angle = nearest_other(means, means, numbers, device=device)
    nearest = np.empty(len(rows), dtype=np.int64)
    nearest_angle, nearest_center = (np.empty(len(rows), dtype=np.float32) for _ in range(2))
    for at in range(0, len(rows), WINDOW):
        here = slice(at, at + WINDOW)
        units = unit(embeddings[rows[here]].astype(np.float32))
        # Somebody's second folder is near to all of their images: not a reason to call each of them wrong.
        nearest[here], nearest_angle[here] = nearest_other(units, means, owner[here], device=device)
        _, nearest_center[here] = nearest_other(units, of_center, owner[here], device=device)
    return Survey(
        positions[rows], owner, own, own_center, nearest, nearest_angle, nearest_center, second, present, counts,
        spread, angle(np.sum(means * of_center, axis=1)), neighbour, neighbour_angle, separation,
        np.bincount(owner[second], minlength=len(present)), second_spread,
    )  # fmt: skip


def _robust_mean(units: Floats, own: Floats) -> Floats:
    """Mean direction without the images that lie far from the others, as long as those are a minority."""
    if len(units) < 3:
        return unit(units.sum(axis=0))
    middle = np.median(own)
    near = own <= middle + FAR * max(float(np.median(np.abs(own - middle))), 1e-3)
    return unit(units[near].sum(axis=0))
