"""Any encoded images, through the decoders of training: batches in a given order, as they are, ahead of the caller."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.augmentation import Augmentation
from data_pipeline.batch import BadImageError, EncodedBatch
from data_pipeline.decoders import DecoderName, choose_device, make_decoder
from data_pipeline.errors import DataError
from data_pipeline.image_fault import ImageCheck

Positions = NDArray[np.int64]


def decoded_batches(
    batches: Sequence[Positions],
    read: Callable[[Positions], Sequence[bytes]],
    describe: Callable[[int], str],
    *,
    decoder: DecoderName = "dali",
    device: str | torch.device = "cpu",
    image_size: int = 112,
    num_threads: int = 1,
    prefetch: int = 2,
) -> Iterator[torch.Tensor]:
    """[B, 3, S, S] float32 RGB in [-1, 1] of each of ``batches`` in turn, each at least one image.

    read: the encoded images at some positions, called on one thread, ``prefetch`` batches ahead of the decoder.
    describe: what an image is called in messages. Images of another size are resized, the way training does it.

    Raises:
        DataError: an image that cannot be decoded, and whatever ``read`` raises.
    """
    if not len(batches):
        return
    opener = make_decoder(
        decoder, max(map(len, batches)), image_size, num_threads, prefetch, choose_device(device), Augmentation(flip=0)
    )

    check = ImageCheck()  # as in training: DALI can crash on what is no image

    def encoded(positions: Positions) -> EncodedBatch:
        images = read(positions)
        for place, image in zip(positions.tolist(), images, strict=True):
            if fault := check(image):
                raise DataError(f"{describe(place)} cannot be decoded: {fault.detail}; remove or replace it")
        none = np.zeros(len(positions), dtype=np.bool_)
        return EncodedBatch(positions, positions, images, none)

    upcoming = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="read") as thread:
        reading = deque(thread.submit(encoded, positions) for positions in islice(upcoming, 2 * prefetch))
        decoding: deque[EncodedBatch] = deque()
        try:
            while reading or decoding:
                while reading and len(decoding) < prefetch and (not decoding or reading[0].done()):
                    batch = reading.popleft().result()
                    opener.submit(batch)
                    decoding.append(batch)
                    reading.extend(thread.submit(encoded, positions) for positions in islice(upcoming, 1))
                batch = decoding.popleft()
                try:
                    make_images = opener.collect()
                except BadImageError as error:
                    place, detail = next(iter(error.details.items()))
                    raise DataError(
                        f"{describe(int(batch.indices[place]))} cannot be decoded: {detail}; remove or replace it"
                    ) from None
                yield make_images()
        finally:
            for pending in reading:
                pending.cancel()
            opener.clear()
