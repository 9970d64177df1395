"""Angle statistics of every identity and image, from the embeddings of one pass.

M usable images in order of their identities, C identities that have some, D embedding size. Memory: two tables [C, D],
a few numbers an image, and the images of one identity.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.cleaning.angles import Floats, angle, halves, in_scatters, nearest_other, to_the_others, two_groups, unit
from trainer.cleaning.embedding_pass import Half

Whole = NDArray[np.int64]
WINDOW = 16384  # images whose nearest other identity is looked for together
SMALLEST_HALF = 4  # images, to be halved again
FAR = 3.0 * 1.4826  # median absolute deviations, scaled to a normal distribution's standard deviation


@dataclass(frozen=True, eq=False)
class Survey:
    """Angles in radians.

    Of images: positions [M] in the data set; owner [M], number of the identity in ``identities``; own [M], angle to
    the mean of the identity's other images; own_center [M], to the identity's trained center; nearest [M], number of
    the other identity whose mean is nearest, and nearest_angle [M]; nearest_center [M],
    angle to the nearest other trained center, and center_of [M], number of the identity whose that is.
    Of identities: identities [C], counts [C], spread [C], the median of ``own``; mean_to_center [C]; neighbour [C],
    number of the identity whose mean is nearest, and neighbour_angle [C]; likeness [C], that angle over what it would
    be if both were one person, and own_likeness [C], the same for the two halves of the identity itself (NaN below 8
    images), see :func:`trainer.cleaning.angles.in_scatters`; separation [C], second_count [C],
    second_spread [C]: of its two groups; second [M], whether an image is in the smaller one.
    """

    positions: Whole
    owner: Whole
    own: Floats
    own_center: Floats
    nearest: Whole
    nearest_angle: Floats
    nearest_center: Floats
    center_of: Whole
    second: NDArray[np.bool_]
    identities: Whole
    counts: Whole
    spread: Floats
    mean_to_center: Floats
    neighbour: Whole
    neighbour_angle: Floats
    likeness: Floats
    own_likeness: Floats
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
    spread, separation, second_spread, scatter, own_likeness = (
        np.full(len(present), np.nan, dtype=np.float32) for _ in range(5)
    )
    for number in range(len(present)):
        here = slice(starts[number], starts[number + 1])
        units = unit(embeddings[rows[here]].astype(np.float32))
        own[here] = to_the_others(units)
        own_center[here] = angle(units @ of_center[number])
        near = units[_near(own[here])]
        means[number] = unit(near.sum(axis=0))
        scatter[number] = halves(near)
        if len(near) >= 2 * SMALLEST_HALF:
            one, other = (np.array([halves(near[begin::2])], dtype=np.float32) for begin in (0, 1))
            own_likeness[number] = in_scatters(scatter[number : number + 1], one, other)[0]
        if len(units) < 2:
            continue
        spread[number] = np.median(own[here])
        groups = two_groups(units)
        if groups is not None:
            second[here] = groups.second
            separation[number], second_spread[number] = groups.separation, groups.spread
    numbers = np.arange(len(present))
    neighbour, neighbour_angle = nearest_other(means, means, numbers, device=device)
    likeness = in_scatters(neighbour_angle, scatter, scatter[neighbour])
    likeness[neighbour < 0] = np.nan
    nearest, center_of = (np.empty(len(rows), dtype=np.int64) for _ in range(2))
    nearest_angle, nearest_center = (np.empty(len(rows), dtype=np.float32) for _ in range(2))
    for at in range(0, len(rows), WINDOW):
        here = slice(at, at + WINDOW)
        units = unit(embeddings[rows[here]].astype(np.float32))
        nearest[here], nearest_angle[here] = nearest_other(units, means, owner[here], device=device)
        center_of[here], nearest_center[here] = nearest_other(units, of_center, owner[here], device=device)
    return Survey(
        positions[rows], owner, own, own_center, nearest, nearest_angle, nearest_center, center_of, second, present,
        counts, spread, angle(np.sum(means * of_center, axis=1)), neighbour, neighbour_angle, likeness, own_likeness,
        separation, np.bincount(owner[second], minlength=len(present)), second_spread,
    )  # fmt: skip


def _near(own: Floats) -> NDArray[np.bool_]:
    """[n] images that do not lie far from the others of their identity, as long as those that do are a minority."""
    if len(own) < 3:
        return np.ones(len(own), dtype=np.bool_)
    middle = np.median(own)
    near: NDArray[np.bool_] = own <= middle + FAR * max(float(np.median(np.abs(own - middle))), 1e-3)
    return near
