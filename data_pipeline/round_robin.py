"""An endless sequence over [0, size) that uses everything once before it uses anything again.

Shapes: m places asked for.
"""

import numpy as np
from numpy.typing import NDArray

from data_pipeline.permutation import ROUNDS_FOR_FEW, permute, random_words

Labels = tuple[int | NDArray[np.int64], ...]


def round_robin(
    places: NDArray[np.int64], sizes: NDArray[np.int64], apart: int, order: Labels, passes: Labels
) -> NDArray[np.int64]:
    """The elements [m], each in [0, its size), at ``places`` [m] of endless sequences.

    Pass number q is places [q * size, (q + 1) * size) and holds every element once. Any ``apart`` neighbouring places
    hold different elements, also across the seam of two passes, where size >= apart.

    For that, a sequence's elements are dealt into two halves once and for all; a pass is a new permutation of the first
    half, then one of the second, so neighbours lie in one half or in two different ones. Below 2 * apart elements
    that is impossible and every pass has the same order.

    Args:
        places: [m], from 0.
        sizes: [m].
        apart: neighbouring places that must differ.
        order: labels of the sequence (numbers, or arrays [m]): what is drawn once.
        passes: the same for what is drawn in each pass.
    """
    number, place = places // sizes, places % sizes
    first = sizes // 2
    second = place >= first
    renewed = sizes >= 2 * apart
    start, half = np.where(second, first, 0), np.where(second, sizes - first, first)
    keys = random_words(*passes, number, second.astype(np.int64), count=ROUNDS_FOR_FEW)[:, renewed]
    place[renewed] = start[renewed] + permute((place - start)[renewed], half[renewed], keys)
    return permute(place, sizes, random_words(*order, count=ROUNDS_FOR_FEW))
