"""Decoding with Pillow: needs no DALI. The same images up to the rounding of two JPEG decoders."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.batch import BadImageError, EncodedBatch
from data_pipeline.decode_image import decode_image


class PillowDecoder:
    """A ``Decoder`` on ``num_threads`` threads of this process; images go to ``device`` at the end."""

    def __init__(self, image_size: int, num_threads: int, device: torch.device) -> None:
        self._image_size = image_size
        self._device = device
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._pending: deque[list[Future[NDArray[np.uint8]]]] = deque()
        self._flips: deque[NDArray[np.bool_]] = deque()

    def submit(self, batch: EncodedBatch) -> None:
        """Start decoding a batch."""
        self._pending.append([self._threads.submit(decode_image, jpeg, self._image_size) for jpeg in batch.jpegs])
        self._flips.append(batch.flips)

    def collect(self) -> torch.Tensor:
        """Images [B, 3, H, W] of the oldest batch."""
        futures, flipped = self._pending.popleft(), self._flips.popleft()
        size = self._image_size
        images = torch.empty(len(futures), 3, size, size)
        for place, (future, flip) in enumerate(zip(futures, flipped, strict=True)):
            try:
                picture = future.result()
            except ValueError as error:
                self.clear()
                raise BadImageError(place, str(error)) from error
            picture = picture[:, ::-1] if flip else picture
            images[place] = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        return images.sub_(127.5).div_(127.5).to(self._device)

    def clear(self) -> None:
        """Forget what is in flight."""
        for futures in self._pending:
            for future in futures:
                future.cancel()
        self._pending.clear()
        self._flips.clear()
