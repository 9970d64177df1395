"""Decoding and augmentation without DALI: Pillow, NumPy and threads. The same bits as DALI on the CPU."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.augment_image import augment_image
from data_pipeline.batch import BadImageError, EncodedBatch
from data_pipeline.decode_image import decode_image

_SCALE = np.float32(1) / np.float32(127.5)  # DALI multiplies: a division would round differently


class PillowDecoder:
    """A ``Decoder`` on ``num_threads`` threads of this process; images go to ``device`` at the end."""

    def __init__(self, image_size: int, num_threads: int, device: torch.device) -> None:
        self._image_size = image_size
        self._device = device
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._pending: deque[list[Future[NDArray[np.float32]]]] = deque()

    def submit(self, batch: EncodedBatch) -> None:
        """Start decoding a batch."""
        self._pending.append([self._threads.submit(self._image, batch, place) for place in range(len(batch.jpegs))])

    def collect(self) -> Callable[[], torch.Tensor]:
        """The oldest batch, decoded; its images [B, 3, H, W] on demand."""
        futures = self._pending.popleft()
        size = self._image_size
        images = np.empty((len(futures), 3, size, size), dtype=np.float32)
        bad: dict[int, str] = {}
        for place, future in enumerate(futures):
            try:
                images[place] = future.result()
            except ValueError as error:
                bad[place] = str(error)
        if bad:
            self.clear()
            raise BadImageError(bad)
        return lambda: torch.from_numpy(images).to(self._device)

    def clear(self) -> None:
        """Forget what is in flight."""
        for futures in self._pending:
            for future in futures:
                future.cancel()
        self._pending.clear()

    def _image(self, batch: EncodedBatch, place: int) -> NDArray[np.float32]:
        picture = augment_image(decode_image(batch.jpegs[place]), self._image_size, batch.draws, place)
        picture = picture[:, ::-1] if batch.flips[place] else picture
        return (picture.transpose(2, 0, 1) - np.float32(127.5)) * _SCALE
