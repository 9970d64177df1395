"""Which image comes where: pure functions of (seed, epoch, place), the same on every rank and for any world size.

The shuffle is a keyed permutation of [0, n) that is computed place by place (a Feistel network), so no rank ever
holds a list of all images: an epoch of 42 million images costs no memory, and resuming in its middle no time.
All arithmetic is on 64-bit integers, so the order is the same under every NumPy version.

Shapes: n images in the data set, N global batch, W world size, m places asked for.
"""

import math
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Order = Literal["global", "sequential"]
ORDERS: tuple[str, ...] = get_args(Order)

_SHUFFLE, _FLIP = 1, 2  # what a stream of random numbers is for
_ROUNDS = 8
_GAMMA = 0x9E3779B97F4A7C15  # splitmix64's increment


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finaliser of splitmix64: a bijection of 64-bit numbers that looks random. Same shape in and out."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _stream(seed: int, epoch: int, purpose: int, length: int) -> NDArray[np.uint64]:
    """``length`` random numbers that belong to (seed, epoch, purpose)."""
    key = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, purpose):
        key = splitmix64(key + np.uint64(part * _GAMMA & (1 << 64) - 1) + np.uint64(1))
    return splitmix64(key + np.arange(1, length + 1, dtype=np.uint64) * np.uint64(_GAMMA))


def _permute_grid(cells: NDArray[np.uint64], rows: int, columns: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A keyed bijection of [0, rows * columns): each round shifts one coordinate by a hash of the other."""
    row, column = cells // np.uint64(columns), cells % np.uint64(columns)
    for number, key in enumerate(keys):
        if number % 2:
            column = (column + splitmix64(row * np.uint64(_GAMMA) + key) % np.uint64(columns)) % np.uint64(columns)
        else:
            row = (row + splitmix64(column * np.uint64(_GAMMA) + key) % np.uint64(rows)) % np.uint64(rows)
    return row * np.uint64(columns) + column


def images_at(places: NDArray[np.int64], num_images: int, seed: int, epoch: int, order: Order) -> NDArray[np.int64]:
    """Positions in the data set [m] of the images at ``places`` [m] of an epoch.

    "global" permutes all images by (seed, epoch); "sequential" leaves them as they lie.
    """
    if order == "sequential":
        return places.astype(np.int64)
    rows = math.isqrt(num_images - 1) + 1
    columns = -(-num_images // rows)
    keys = _stream(seed, epoch, _SHUFFLE, _ROUNDS)
    cells = _permute_grid(places.astype(np.uint64), rows, columns, keys)
    # The grid is a little larger than the data set: whoever lands outside walks on along its cycle.
    while len(outside := np.flatnonzero(cells >= num_images)):
        cells[outside] = _permute_grid(cells[outside], rows, columns, keys)
    return cells.astype(np.int64)


def flips(indices: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.bool_]:
    """Whether each image [m] is mirrored in this epoch: one bit of a hash of (seed, epoch, index)."""
    key = _stream(seed, epoch, _FLIP, 1)
    flipped: NDArray[np.bool_] = splitmix64(key + indices.astype(np.uint64) * np.uint64(_GAMMA)) >> np.uint64(63) == 1
    return flipped


def count_batches(num_images: int, global_batch: int, drop_last: bool) -> int:
    """Global batches of an epoch, with or without the partial one at its end."""
    return num_images // global_batch if drop_last else -(-num_images // global_batch)


def batch_places(number: int, num_images: int, global_batch: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """Places in the epoch that ``rank`` takes of global batch ``number``: a contiguous part of it.

    The ranks' parts in their order make up the batch; their sizes differ by at most one, so a partial batch
    gives every rank a step (an empty one only where it has fewer images than ranks).
    """
    start = number * global_batch
    count = min(global_batch, num_images - start)
    return np.arange(start + count * rank // world_size, start + count * (rank + 1) // world_size, dtype=np.int64)
