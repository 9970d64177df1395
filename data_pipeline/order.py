"""Which image comes where: pure functions of (seed, epoch, place), the same on every rank and for any world size.

The shuffle is a keyed permutation of [0, n) that is computed place by place (``permutation.py``), so no rank ever
holds a list of all images: an epoch of 42 million images costs no memory, and resuming in its middle no time.

Shapes: n images in the data set, N global batch, W world size, m places asked for.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from data_pipeline.blocks import BlockOrder, BlockShape
from data_pipeline.permutation import ROUNDS, permute, random_words
from data_pipeline.purposes import SHUFFLE

Order = Literal["global", "blocks", "sequential"]
ORDERS: tuple[str, ...] = get_args(Order)


def images_at(
    places: NDArray[np.int64], num_images: int, seed: int, epoch: int, order: Order, blocks: BlockShape | None = None
) -> NDArray[np.int64]:
    """Positions in the data set [m] of the images at ``places`` [m] of an epoch.

    "global" permutes all images by (seed, epoch); "blocks" permutes blocks of neighbours and shuffles a window of
    them (``blocks``: their sizes); "sequential" leaves the images as they lie.
    """
    if order == "sequential":
        return places.astype(np.int64)
    if order == "blocks":
        return BlockOrder(num_images, seed, epoch, blocks or BlockShape()).images_at(places)
    return permute(places, num_images, random_words(seed, epoch, SHUFFLE, count=ROUNDS))


def count_batches(num_places: int, global_batch: int, drop_last: bool) -> int:
    """Global batches of an epoch, with or without the partial one at its end."""
    return num_places // global_batch if drop_last else -(-num_places // global_batch)


def batch_places(number: int, num_places: int, global_batch: int, rank: int, world_size: int) -> NDArray[np.int64]:
    """Places in the epoch that ``rank`` takes of global batch ``number``: a contiguous part of it.

    The ranks' parts in their order make up the batch; their sizes differ by at most one, so a partial batch
    gives every rank a step (an empty one only where it has fewer images than ranks).
    """
    start = number * global_batch
    count = min(global_batch, num_places - start)
    return np.arange(start + count * rank // world_size, start + count * (rank + 1) // world_size, dtype=np.int64)
