"""Whose images a list of pairs shows, as far as the list itself says."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray


def identities_of_pairs(
    first: NDArray[np.int64], second: NDArray[np.int64], same: NDArray[np.bool_], images: int
) -> NDArray[np.int64]:
    """Identity [images] of each image, numbered from 0: images joined by same pairs are of one.

    A list may show a person in several groups that nothing joins; they count as different people, which makes a
    bootstrap over identities a little too narrow, never as narrow as one over pairs.
    """
    parent = list(range(images))

    def root(image: int) -> int:
        while parent[image] != image:
            parent[image] = parent[parent[image]]
            image = parent[image]
        return image

    for one, other in zip(first[same].tolist(), second[same].tolist(), strict=True):
        parent[root(one)] = root(other)
    roots = np.array([root(image) for image in range(images)], dtype=np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def number_equal_images(images: Sequence[bytes] | Iterable[bytes]) -> NDArray[np.int64]:
    """The same number for images of the same bytes: `.bin` sets repeat an image for every pair that it is in."""
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(image, len(numbers)) for image in images], dtype=np.int64)
