"""``order = "blocks"``: a shuffle that reads the disk in long stretches, for network disks and spinning disks.

Neighbouring images form **blocks** of b images (the last block may be shorter). The blocks are permuted by (seed,
epoch); each W consecutive blocks of that order form a **window**, and all images of a window are permuted. So at any
time only the W blocks of one window are read, each as one stretch, and a batch mixes all W of them.

How well it shuffles. Images of different blocks meet as in a true shuffle: which blocks share a window is drawn anew in
each epoch. Images of one block, however, always share a window of S = b * W images, so two of them meet in a batch
about n/S times as often as in a true shuffle. Files sorted by identity are the worst case: with g images an identity,
g < b, a sample's batch of N holds about N * (g - 1) / S others of its identity instead of N * (g - 1) / n, and a
window holds about S/g + W identities. With the defaults (S = 65,536), MS1MV2 (g = 68, n = 5.8 million) and N = 512 that
is 0.5 others instead of 0.006. A larger window, or smaller blocks at the same S, come nearer to the true shuffle;
files that were shuffled when written have none of this effect.

Shapes: n images, b images a block, W blocks a window, m places.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.permutation import ROUNDS, permute, random_words
from data_pipeline.purposes import BLOCKS, WINDOW

BLOCK_IMAGES, WINDOW_BLOCKS = 256, 256


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Images a block and blocks a window, both at least 1.

    A block should take a disk longer to read than to find: 256 face images of 112x112 are some 2 MiB. The page
    cache should hold two windows: 256 blocks of 256 such images are 0.6 GB each.
    """

    images: int = BLOCK_IMAGES
    window: int = WINDOW_BLOCKS


class BlockOrder:
    """The order of one epoch: a pure function of (n, seed, epoch, shape), computed place by place."""

    def __init__(self, num_images: int, seed: int, epoch: int, shape: BlockShape) -> None:
        self.num_images = num_images
        # Larger sizes than there are images or blocks change nothing; without them no product overflows.
        self._per_block = min(shape.images, num_images)
        self.num_blocks = -(-num_images // self._per_block)
        self._per_window = min(shape.window, self.num_blocks)  # blocks
        self._labels = (seed, epoch)
        self._block_keys = random_words(*self._labels, BLOCKS, count=ROUNDS)
        # Of the one block that may be short: how many images it lacks, and its place in the order of blocks.
        self._missing = self.num_blocks * self._per_block - num_images
        self._short = int(permute(np.array([self.num_blocks - 1]), self.num_blocks, self._block_keys, inverse=True)[0])

    def images_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in the data set [m] of the images at ``places`` [m] of the epoch."""
        per_block = self._per_block
        window = self.window_at(places)
        first = window * self._per_window
        start = first * per_block - self._missing_before(first)
        end = np.minimum(start + self._per_window * per_block - self._missing * self._is_in(window), self.num_images)
        # One permutation a window; each place carries the keys and the size of its own.
        keys = random_words(*self._labels, WINDOW, window, count=ROUNDS)
        inside = permute(places - start, end - start, keys)
        short_end = (self._short - first + 1) * per_block - self._missing
        inside += self._missing * (self._is_in(window) & (inside >= short_end))
        blocks = self.blocks_at(first + inside // per_block)
        return blocks * per_block + inside % per_block

    def window_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The window [m] that each place [m] belongs to, counted from the epoch's beginning."""
        behind_short = places >= (self._short + 1) * self._per_block - self._missing
        per_window = self._per_window * self._per_block
        windows: NDArray[np.int64] = (places + self._missing * behind_short) // per_window
        return windows

    def blocks_at(self, block_places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The blocks [m] at places [m] of the order of blocks."""
        return permute(block_places, self.num_blocks, self._block_keys)

    def images_of(self, block: int) -> range:
        """Positions in the data set of one block's images: neighbours in the file."""
        return range(block * self._per_block, min((block + 1) * self._per_block, self.num_images))

    def places_of(self, window: int) -> range:
        """Places in the epoch that a window takes."""
        ends = [min(number * self._per_window, self.num_blocks) for number in (window, window + 1)]
        start, stop = (end * self._per_block - int(self._missing_before(np.array(end))) for end in ends)
        return range(start, stop)

    def _missing_before(self, block_places: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._missing * (block_places > self._short)

    def _is_in(self, windows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the short block belongs to each window."""
        found: NDArray[np.bool_] = windows == self._short // self._per_window
        return found
