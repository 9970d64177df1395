"""Which image takes the place of a bad one: a pure function, the same on every rank and after a resume."""

import numpy as np

from data_pipeline.permutation import splitmix64

MAX_ATTEMPTS = 64  # even where half of the images are bad, one in 10**19 places runs out of them

_PURPOSE = 0x5245504C  # apart from the streams of the order and of the augmentation
_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def replacement(index: int, attempt: int, *, seed: int, epoch: int, num_images: int) -> int:
    """Position in the data set of the image that stands in for image ``index`` in ``epoch``, from [0, num_images).

    ``attempt`` counts from 0; the next one is asked for where the answer is a bad image itself.
    """
    key = np.zeros(1, dtype=np.uint64)
    for part in (_PURPOSE, seed, epoch, index, attempt):
        key = splitmix64(key + np.uint64(part * _GAMMA & _MASK) + np.uint64(1))
    return int(key[0] % np.uint64(num_images))
