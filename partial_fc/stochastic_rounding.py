"""How centers kept in bfloat16 are written: with stochastic rounding, which loses no small movement on average.

A float32 lies between two bfloat16 numbers, the lower 16 of its bits say how far from the one nearer to zero. Adding 16
random bits to them and dropping the lower half rounds away from zero with just that probability, so the mean of what
is stored is the number itself. Rounding to the nearest would throw away every movement below half a step, 2^-9 of the
number, again and again. A number that bfloat16 can hold is stored as it is.

The random bits are a hash of (seed, step, purpose, global class id, column): the same at any world size and after a
resume, and the same in C++ (native/half.h), here and in Triton (triton_rounding.py).
Shape letters: n rows, D embedding size.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
COLUMN_STRIDE = 0x9E3779B9  # of the hash's input from column to column
CATCH_UP, UPDATE, TO_REST, FOLD, DECAY = range(5)  # purposes: a row may be written for several in one step


@dataclass(frozen=True)
class Rounding:
    """Of rows that are written in one go. key: see :func:`rounding_key`. first_class: global class id of row 0, or
    classes: [n] int64 of each row.
    """

    key: int
    first_class: int = 0
    classes: Tensor | None = None

    @property
    def halves(self) -> tuple[int, int]:
        """The key's lower and upper 32 bits."""
        return self.key & MASK, self.key >> 32

    @property
    def signed_halves(self) -> tuple[int, int]:
        """The same bits as signed numbers: for larger ones, of another type, Triton compiles a program anew."""
        low, high = (half - 2**32 if half >= 2**31 else half for half in self.halves)
        return low, high


def rounding_key(seed: int, step: int, purpose: int) -> int:
    """64 bits."""
    digest = hashlib.blake2b(f"rounding:{seed}:{step}:{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest)


def round_rows(values: Tensor, rounding: Rounding, classes: Tensor) -> Tensor:
    """[n, D] float32 -> bfloat16, as rows of the global ``classes`` [n] int64. What is not finite stays so."""
    bits = values.contiguous().view(torch.int32).long() & MASK
    noise = random_bits(rounding, classes, values.shape[1])
    finite = (bits & 0x7F800000) != 0x7F800000
    quiet = torch.where((bits & 0x007FFFFF) != 0, 0x40, 0)
    half = torch.where(finite, (bits + noise) >> 16, (bits >> 16) | quiet)
    return half.to(torch.int16).view(torch.bfloat16)


def random_bits(rounding: Rounding, classes: Tensor, dim: int) -> Tensor:
    """[n, D] int64 in [0, 2^16)."""
    low, high = rounding.halves
    start = _mixed(_mixed(low ^ (classes & MASK)) ^ high ^ (classes >> 32))
    columns = torch.arange(dim, device=classes.device) * COLUMN_STRIDE
    return _mixed((start[:, None] + columns) & MASK) & 0xFFFF


def _mixed(x: Tensor) -> Tensor:
    """An invertible hash of 32 bits (C. Wellons, lowbias32), held in int64."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & MASK
    return x ^ (x >> 16)
