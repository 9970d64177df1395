"""Keyed permutations that are computed place by place, so that none is ever held in memory.

All arithmetic is on 64-bit integers, so the numbers are the same under every NumPy version and on every machine.

Shapes: m places asked for, R rounds of a permutation.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Words: TypeAlias = NDArray[np.uint64]

ROUNDS = 8  # plenty for hundreds of places and more
ROUNDS_FOR_FEW = 16  # so that a handful, too, comes in all orders about equally often
GAMMA = 0x9E3779B97F4A7C15  # splitmix64's increment
_WORD = (1 << 64) - 1


def splitmix64(values: Words) -> Words:
    """Finaliser of splitmix64: a bijection of 64-bit numbers that looks random. Same shape in and out."""
    mixed = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def random_words(*labels: int | Integers, count: int) -> Words:
    """``count`` random numbers that belong to ``labels``: [count], or [count, m] where a label is an array [m]."""
    key = np.zeros(1, dtype=np.uint64)
    for label in labels:
        word = label.astype(np.uint64) if isinstance(label, np.ndarray) else np.array([label & _WORD], dtype=np.uint64)
        key = splitmix64(key + word * np.uint64(GAMMA) + np.uint64(1))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA)
    return splitmix64(key + (steps[:, None] if any(isinstance(label, np.ndarray) for label in labels) else steps))


def permute(places: Integers, sizes: int | Integers, keys: Words, *, inverse: bool = False) -> Integers:
    """Where a keyed permutation of [0, size) takes each place [m]; ``inverse``: which place it takes there.

    Args:
        places: [m], each in [0, its size).
        sizes: one size for all, or [m].
        keys: [R], or [R, m] where each place has a permutation of its own.
    """
    size = np.atleast_1d(np.asarray(sizes, dtype=np.int64))
    rows = _square_root(size - 1) + 1
    columns = -(-size // rows)
    grid = rows.astype(np.uint64), columns.astype(np.uint64)
    keys = keys[:, None] if keys.ndim == 1 else keys
    cells = _permute_grid(places.astype(np.uint64), *grid, keys, inverse)
    # The grid is a little larger than the size: whoever lands outside walks on along its cycle.
    bound = size.astype(np.uint64)
    while len(outside := np.flatnonzero(cells >= bound)):
        subset = [each if each.shape[-1] == 1 else each[..., outside] for each in (*grid, keys)]
        cells[outside] = _permute_grid(cells[outside], subset[0], subset[1], subset[2], inverse)
    return cells.astype(np.int64)


def _permute_grid(cells: Words, rows: Words, columns: Words, keys: Words, inverse: bool) -> Words:
    """A keyed bijection of [0, rows * columns): each round shifts one coordinate by a hash of the other."""
    row, column = cells // columns, cells % columns
    numbered = list(enumerate(keys))
    for number, key in reversed(numbered) if inverse else numbered:
        if number % 2:
            column = _shifted(column, splitmix64(row * np.uint64(GAMMA) + key), columns, inverse)
        else:
            row = _shifted(row, splitmix64(column * np.uint64(GAMMA) + key), rows, inverse)
    return row * columns + column


def _shifted(values: Words, shift: Words, modulus: Words, back: bool) -> Words:
    step = shift % modulus
    return (values + (modulus - step if back else step)) % modulus


def _square_root(values: Integers) -> Integers:
    """Largest whole number whose square is at most each of ``values``, from 0 to below 2**62."""
    root = np.sqrt(values.astype(np.float64)).astype(np.int64)  # one off at most
    root -= root * root > values
    root += (root + 1) * (root + 1) <= values
    return root


def uniforms(indices: NDArray[np.int64], seed: int, epoch: int, purpose: int) -> NDArray[np.float64]:
    """A number in [0, 1) for each image [m]: a hash of (seed, epoch, purpose, index)."""
    key = random_words(seed, epoch, purpose, count=1)
    hashes = splitmix64(key + indices.astype(np.uint64) * np.uint64(GAMMA))
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
