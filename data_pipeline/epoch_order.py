"""The order that a loader was asked for, behind one face: places of an epoch in, images out."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_pipeline.balanced import BalancedOrder
from data_pipeline.blocks import BlockShape
from data_pipeline.errors import DataError
from data_pipeline.order import ORDERS, Order, images_at
from data_pipeline.position import Position
from data_pipeline.reader import RecordReader


class EpochOrder(Protocol):
    """An epoch is ``num_places`` images."""

    num_places: int

    def images_at(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Positions in the data set [m] of the images at ``places`` [m] of an epoch."""


class EveryImageOnce:
    """Every image once in an epoch: the orders of ``order.py``. ``num_places`` is the number of images."""

    def __init__(self, position: Position) -> None:
        self.num_places = position.num_images
        self._position = position
        self._blocks = block_shape(position)

    def images_at(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Positions in the data set [m] of the images at ``places`` [m] of an epoch."""
        return images_at(places, self.num_places, self._position.seed, epoch, self._position.order, self._blocks)


def block_shape(position: Position) -> BlockShape | None:
    """Sizes of blocks and window; None where the order has none."""
    return BlockShape(position.block_images, position.window_blocks) if position.order == "blocks" else None


def beginning(
    *, seed: int, num_images: int, global_batch: int, order: Order, block_images: int, window_blocks: int,
    identities_per_batch: int | None, images_per_identity: int | None,
) -> Position:  # fmt: skip
    """The position before the first batch. What the order does not use is 0 there, so that it may change.

    Raises:
        DataError: an argument that cannot work, or that contradicts another one.
    """
    if order not in ORDERS:
        raise DataError(f"order {order!r} is unknown: use {', '.join(ORDERS[:-1])} or {ORDERS[-1]}")
    sizes = {"block_images": block_images, "window_blocks": window_blocks}
    balance = {"identities_per_batch": identities_per_batch, "images_per_identity": images_per_identity}
    for name, value in {**sizes, **balance}.items():
        if value is not None and value < 1:
            raise DataError(f"{name} is {value}: it must be at least 1")
    if (identities_per_batch is None) != (images_per_identity is None):
        raise DataError("identities_per_batch and images_per_identity belong together: give both or neither")
    if identities_per_batch is not None and images_per_identity is not None:
        if order != "global":
            raise DataError(
                f"order {order!r} cannot be balanced: identities_per_batch and images_per_identity draw images from "
                "all over the data set, so leave order at 'global' or leave them out"
            )
        if identities_per_batch * images_per_identity != global_batch:
            raise DataError(
                f"identities_per_batch {identities_per_batch} x images_per_identity {images_per_identity} is "
                f"{identities_per_batch * images_per_identity}, but the global batch (batch_size x ranks) is "
                f"{global_batch}: make them equal"
            )
    return Position(
        seed, 0, 0, global_batch, num_images, order,
        **(sizes if order == "blocks" else {}), **{name: value or 0 for name, value in balance.items()},
    )  # fmt: skip


def order_of(position: Position, reader: RecordReader) -> EpochOrder:
    """The order of the run that ``position`` belongs to. Balanced batches read the labels of all images.

    Raises:
        DataError: more identities a batch than there are; a label that is no identity.
    """
    if position.identities_per_batch:
        return BalancedOrder(
            reader.identities, position.seed, position.identities_per_batch, position.images_per_identity
        )
    return EveryImageOnce(position)
