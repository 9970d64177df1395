"""Batches of one rank, epoch after epoch: the order says which images, the reader brings them, a decoder opens them.

Reading runs on one thread of its own and decoding on the decoder's, both some batches ahead of the caller; the
position counts the batches that the caller got.
"""

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline import order as sample_order
from data_pipeline.augmentation import Augmentation
from data_pipeline.augmentation_draws import Draws, draw, draw_flips
from data_pipeline.bad_images import BadImages
from data_pipeline.batch import BadImageError, Batch, Decoder, EncodedBatch
from data_pipeline.epoch_order import EpochOrder, block_shape
from data_pipeline.errors import DataError, Reason
from data_pipeline.position import Position, position_from_state
from data_pipeline.read_ahead import WindowReadAhead
from data_pipeline.reader import RecordReader


class Loader:
    """Made by ``make_loader``. Iterating once gives one epoch; ``len()`` is the number of its batches.

    A loader stands at a position (epoch, samples handed out):

    - ``set_epoch(e)`` moves it to the beginning of epoch e; a position inside e that ``load_state_dict`` has just
      set is kept, so that resuming code may call both.
    - ``for batch in loader`` gives the present epoch from its beginning, or what is left of it after
      ``load_state_dict``. The last batch moves the position to (e + 1, 0), where the next iteration starts.
    - ``state_dict()`` is exact at any moment: it counts the batches handed to the caller, not those decoded ahead.

    Starting an iteration, ``set_epoch`` and ``load_state_dict`` end an iteration that is under way.
    """

    def __init__(
        self, reader: RecordReader, position: Position, order: EpochOrder, rank: int, world_size: int,
        drop_last: bool, augmentation: Augmentation, decoder: Decoder, prefetch: int, device: torch.device,
        image_size: int, bad_images: BadImages,
    ) -> None:  # fmt: skip
        self.reader = reader
        self.bad_images = bad_images
        self.skipped: Counter[Reason] = Counter()  # images replaced in the batches handed out, by reason
        self.rank = rank
        self.world_size = world_size
        self._position = position
        self._order = order
        shape = block_shape(position)
        self._read_ahead = WindowReadAhead(reader, position.seed, shape) if shape else None
        self._resumed = False
        self._drop_last = drop_last
        self._augmentation = augmentation
        self._decoder = decoder
        self._prefetch = prefetch
        self._device = device
        self._image_size = image_size
        self._iteration = 0
        self._last_global_batch = 0
        # One for all epochs: a thread that cannot start for want of memory would leave its starter waiting for ever.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="read")
        self._reading: deque[Future[EncodedBatch]] = deque()
        self._decoding: deque[EncodedBatch] = deque()

    @property
    def global_batch(self) -> int:
        """Samples per step over all ranks."""
        return self._position.global_batch

    @property
    def smallest_global_batch(self) -> int:
        """The fewest samples of a step over all ranks: those of an epoch's partial batch, where it is not dropped."""
        rest = self._order.num_places % self.global_batch
        return self.global_batch if self._drop_last or not rest else rest

    @property
    def smallest_batch(self) -> int:
        """The fewest images that a rank gets in a step of an epoch: 0 where a partial batch leaves one without."""
        return self.smallest_global_batch // self.world_size

    @property
    def last_global_batch(self) -> int:
        """Samples over all ranks of the batch handed out last: fewer in a partial one; 0 before the first."""
        return self._last_global_batch

    @property
    def ahead(self) -> int:
        """Batches that are read and not handed out yet, being decoded or decoded; any thread may ask."""
        return len(self._decoding) + sum(batch.done() for batch in list(self._reading))

    @property
    def most_ahead(self) -> int:
        """The largest value of ``ahead``."""
        return 2 * self._prefetch

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._position.epoch

    def __len__(self) -> int:
        return sample_order.count_batches(self._order.num_places, self.global_batch, self._drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of ``epoch``, from 0 (or keep a position in it that was just loaded)."""
        if epoch < 0:
            raise DataError(f"epoch {epoch} is negative: epochs count from 0")
        if not (self._resumed and epoch == self._position.epoch):
            self._move(epoch, 0)
            self._resumed = False
        self._iteration += 1

    def state_dict(self) -> dict[str, int | str]:
        """Version, seed, epoch, samples (global, of this epoch, handed out) and what makes the order."""
        return self._position.as_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken, on any world size with the same global batch.

        Raises:
            DataError: the state is of another data set, seed, order or global batch.
        """
        self._position = position_from_state(state, self._position)
        if self._position.samples >= len(self) * self.global_batch:
            # Only the partial batch was left, and this loader drops it.
            self._move(self._position.epoch + 1, 0)
        self._resumed = True
        self._iteration += 1

    def __iter__(self) -> Iterator[Batch]:
        if not self._resumed:
            self._move(self._position.epoch, 0)
        self._resumed = False
        self._iteration += 1
        return self._batches(self._iteration, self._position)

    def _batches(self, iteration: int, start: Position) -> Iterator[Batch]:
        numbers = range(start.samples // self.global_batch, len(self))
        upcoming = iter(numbers)
        reading: deque[Future[EncodedBatch]] = deque()
        decoding: deque[EncodedBatch] = deque()
        self._reading, self._decoding = reading, decoding  # for ``ahead``

        def fill() -> None:
            # As many batches being read as being decoded: the decoder does not wait for the disk.
            for number in islice(upcoming, 2 * self._prefetch - len(reading) - len(decoding)):
                reading.append(self._thread.submit(self._read, number, start))
            while reading and len(decoding) < self._prefetch:
                if reading[0].exception():
                    return  # raised when its turn comes: what lies before a bad image is handed out first
                batch = reading.popleft().result()
                if batch.jpegs:
                    self._decoder.submit(batch)
                decoding.append(batch)

        try:
            for number in numbers:
                if iteration != self._iteration:
                    raise RuntimeError("this iteration has ended: the loader was moved or iterated anew meanwhile")
                if number == numbers.start:
                    self._decoder.clear()
                    fill()
                if not decoding:
                    reading[0].result()
                batch, make_images = self._collect(decoding, number, start)
                fill()  # first, so that the decoder is at work while these images are made
                left = self._order.num_places - number * self.global_batch
                self._last_global_batch = min(self.global_batch, left)
                if number == numbers[-1]:
                    self._move(start.epoch + 1, 0)
                else:
                    self._move(start.epoch, (number + 1) * self.global_batch)
                yield self._on_device(batch, make_images())
        finally:
            wait([each for each in reading if not each.cancel()])

    def _read(self, number: int, position: Position) -> EncodedBatch:
        seed, epoch, global_batch = position.seed, position.epoch, position.global_batch
        count = self._order.num_places
        places = sample_order.batch_places(number, count, global_batch, self.rank, self.world_size)
        if self._read_ahead is not None:
            self._read_ahead.reach(epoch, number * global_batch, min((number + 1) * global_batch, count))
        sound = self.bad_images.read(self._order.images_at(places, epoch), seed=seed, epoch=epoch)
        return EncodedBatch(
            sound.indices,
            identities=sound.identities,
            jpegs=sound.jpegs,
            flips=draw_flips(self._augmentation.flip, sound.indices, seed, epoch),
            draws=self._draws(sound.indices, seed, epoch),
            skipped=tuple(sound.skipped),
        )

    def _draws(self, indices: NDArray[np.int64], seed: int, epoch: int) -> Draws | None:
        if self._augmentation.only_flips:
            return None
        return draw(self._augmentation, indices, seed, epoch, self._image_size)

    def _collect(
        self, decoding: deque[EncodedBatch], number: int, start: Position
    ) -> tuple[EncodedBatch, Callable[[], torch.Tensor]]:
        while True:
            batch = decoding[0]
            try:
                make_images = self._decoder.collect() if batch.jpegs else self._no_images
                break
            except BadImageError as error:
                for place, detail in error.details.items():
                    self.bad_images.add(
                        int(batch.indices[place]), "undecodable", detail, identity=int(batch.identities[place])
                    )
            # Now that they are known, reading the batch once more replaces them; the decoder has forgotten the rest.
            decoding[0] = self._read(number, start)
            for each in decoding:
                if each.jpegs:
                    self._decoder.submit(each)
        decoding.popleft()
        self.skipped.update(batch.skipped)
        return batch, make_images

    def _no_images(self) -> torch.Tensor:
        return torch.empty(0, 3, self._image_size, self._image_size, device=self._device)

    def _on_device(self, batch: EncodedBatch, images: torch.Tensor) -> Batch:
        identities, indices = (torch.from_numpy(each).to(self._device) for each in (batch.identities, batch.indices))
        return Batch(images, identities, indices)

    def _move(self, epoch: int, samples: int) -> None:
        self._position = dataclasses.replace(self._position, epoch=epoch, samples=samples)
