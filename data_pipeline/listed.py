"""Chosen images in a given order, as they are: for embedding, not for training."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.augmentation import Augmentation
from data_pipeline.bad_images import BadImagesPolicy, WrongSizePolicy, make_bad_images
from data_pipeline.batch import Batch
from data_pipeline.blocks import BLOCK_IMAGES, WINDOW_BLOCKS
from data_pipeline.decoders import DecoderName, choose_device, make_decoder
from data_pipeline.epoch_order import beginning
from data_pipeline.loader import Loader
from data_pipeline.reader import RecordReader


class _Listed:
    """An order whose place i is image ``positions[i]``, in every epoch."""

    def __init__(self, positions: NDArray[np.int64]) -> None:
        self.num_places = len(positions)
        self._positions = positions

    def images_at(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        return self._positions[places]


def listed_batches(
    reader: RecordReader,
    positions: NDArray[np.int64],
    *,
    batch_size: int,
    decoder: DecoderName = "dali",
    device: str | torch.device = "cpu",
    image_size: int = 112,
    num_threads: int = 1,
    prefetch: int = 2,
    bad_images: BadImagesPolicy = "raise",
    max_bad_images: int | float | None = None,
    wrong_size: WrongSizePolicy = "resize",
) -> Iterator[Batch]:
    """The images at ``positions``, in this order and not augmented, ``batch_size`` at a time, the last batch smaller.

    With ``bad_images = "skip"`` another image stands in for a bad one: ``batch.indices`` says which image is there.
    Arguments and errors are otherwise those of :func:`data_pipeline.loading.make_loader`.
    """
    if not len(positions):
        return
    position = beginning(
        seed=0, num_images=len(positions), global_batch=batch_size, order="sequential", block_images=BLOCK_IMAGES,
        window_blocks=WINDOW_BLOCKS, identities_per_batch=None, images_per_identity=None,
    )  # fmt: skip
    plain = Augmentation(flip=0.0)
    where = choose_device(device)
    faults = make_bad_images(
        reader, policy=bad_images, max_bad_images=max_bad_images, wrong_size=wrong_size, image_size=image_size
    )
    opener = make_decoder(decoder, batch_size, image_size, num_threads, prefetch, where, plain)
    yield from Loader(
        reader, position, _Listed(positions), 0, 1, False, plain, opener, prefetch, where, image_size, faults
    )
