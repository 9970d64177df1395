"""Batches of one rank, epoch after epoch: the order says which images, the reader brings them, a decoder opens them.

Reading runs on one thread of its own and decoding on the decoder's, both some batches ahead of the caller; the
position counts the batches that the caller got.
"""

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import torch

from data_pipeline import order as sample_order
from data_pipeline.batch import BadImageError, Batch, Decoder, EncodedBatch
from data_pipeline.errors import DataError
from data_pipeline.position import Position, position_from_state
from data_pipeline.reader import RecordPath, RecordReader

DecoderName = Literal["dali", "cpu"]


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
        self, reader: RecordReader, position: Position, rank: int, world_size: int, drop_last: bool, flip: bool,
        decoder: Decoder, prefetch: int, device: torch.device, image_size: int,
    ) -> None:  # fmt: skip
        self.reader = reader
        self.rank = rank
        self.world_size = world_size
        self._position = position
        self._resumed = False
        self._drop_last = drop_last
        self._flip = flip
        self._decoder = decoder
        self._prefetch = prefetch
        self._device = device
        self._image_size = image_size
        self._iteration = 0

    @property
    def global_batch(self) -> int:
        """Samples per step over all ranks."""
        return self._position.global_batch

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._position.epoch

    def __len__(self) -> int:
        return sample_order.count_batches(len(self.reader), self.global_batch, self._drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of ``epoch``, from 0 (or keep a position in it that was just loaded)."""
        if epoch < 0:
            raise DataError(f"epoch {epoch} is negative: epochs count from 0")
        if not (self._resumed and epoch == self._position.epoch):
            self._move(epoch, 0)
            self._resumed = False
        self._iteration += 1

    def state_dict(self) -> dict[str, int | str]:
        """Version, seed, epoch, samples (global, of this epoch, handed out), global_batch, num_images, order."""
        return self._position.as_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken, on any world size with the same global batch.

        Raises:
            DataError: the state is of another data set, seed, order or global batch.
        """
        self._position = position_from_state(state, self._position)
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

        def fill() -> None:
            # As many batches being read as being decoded: the decoder does not wait for the disk.
            for number in islice(upcoming, 2 * self._prefetch - len(reading) - len(decoding)):
                reading.append(thread.submit(self._read, number, start))
            while reading and len(decoding) < self._prefetch:
                batch = reading.popleft().result()
                if batch.jpegs:
                    self._decoder.submit(batch)
                decoding.append(batch)

        thread = ThreadPoolExecutor(1, thread_name_prefix="read")
        try:
            for number in numbers:
                if iteration != self._iteration:
                    raise RuntimeError("this iteration has ended: the loader was moved or iterated anew meanwhile")
                if number == numbers.start:
                    self._decoder.clear()
                    fill()
                batch = self._collect(decoding.popleft())
                fill()
                if number == numbers[-1]:
                    self._move(start.epoch + 1, 0)
                else:
                    self._move(start.epoch, (number + 1) * self.global_batch)
                yield batch
        finally:
            thread.shutdown(wait=True, cancel_futures=True)

    def _read(self, number: int, position: Position) -> EncodedBatch:
        count, seed, epoch = position.num_images, position.seed, position.epoch
        places = sample_order.batch_places(number, count, position.global_batch, self.rank, self.world_size)
        indices = sample_order.images_at(places, count, seed, epoch, position.order)
        records = [self.reader[index] for index in indices.tolist()]
        return EncodedBatch(
            indices,
            identities=np.array([record.identity for record in records], dtype=np.int64),
            jpegs=[record.jpeg for record in records],
            flips=sample_order.flips(indices, seed, epoch) & self._flip,
        )

    def _collect(self, batch: EncodedBatch) -> Batch:
        try:
            images = (
                self._decoder.collect()
                if batch.jpegs
                else torch.empty(0, 3, self._image_size, self._image_size, device=self._device)
            )
        except BadImageError as error:
            index, identity = int(batch.indices[error.place]), batch.identities[error.place]
            raise DataError(
                f"image {index} (identity {identity}; {self.reader.describe(index)}) cannot be decoded: {error}; "
                "leave it out and pack the data again"
            ) from error
        identities, indices = (torch.from_numpy(each).to(self._device) for each in (batch.identities, batch.indices))
        return Batch(images, identities, indices)

    def _move(self, epoch: int, samples: int) -> None:
        self._position = dataclasses.replace(self._position, epoch=epoch, samples=samples)


def make_loader(
    records: RecordPath | Sequence[RecordPath] | RecordReader,
    *,
    batch_size: int = 64,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    order: sample_order.Order = "global",
    drop_last: bool = True,
    decoder: DecoderName = "dali",
    device: str | torch.device = "cpu",
    image_size: int = 112,
    flip: bool = True,
    num_threads: int = 1,
    prefetch: int = 2,
) -> Loader:
    """A loader of this rank's part of every global batch.

    The images of global batch number k of an epoch, and whether each is mirrored, depend on (seed, epoch, index)
    alone: batch_size x world_size ranks of any split give the same.

    Args:
        records: a ``.rec`` path, a list of them, or a reader.
        batch_size: images per rank and step.
        rank: this rank, in [0, world_size).
        world_size: number of ranks.
        seed: of order and flips, in [0, 2**63).
        order: "global" shuffles all images anew in each epoch, "sequential" keeps the order of the records.
        drop_last: leave out the images that do not fill a last global batch; otherwise they are split evenly over
            the ranks, and every rank takes the same number of steps (with no images where there are too few).
        decoder: "dali", or "cpu" (Pillow).
        device: where batches are wanted and DALI decodes: "cpu", "cuda", "cuda:1", or "auto" (cuda where there is one).
        image_size: height and width in pixels; images of another size are resized to it.
        flip: mirror half of the images, chosen anew in each epoch.
        num_threads: decoding threads.
        prefetch: batches decoded ahead of the caller.

    Raises:
        DataError: an argument out of range, more samples per step than images, unreadable records, no DALI.
    """
    reader = records if isinstance(records, RecordReader) else RecordReader(records)
    for name, value in {
        "batch_size": batch_size, "world_size": world_size, "image_size": image_size,
        "num_threads": num_threads, "prefetch": prefetch,
    }.items():  # fmt: skip
        if value < 1:
            raise DataError(f"{name} is {value}: it must be at least 1")
    if not 0 <= rank < world_size:
        raise DataError(f"rank {rank} is outside [0, {world_size}): give each of the {world_size} ranks its own number")
    if not 0 <= seed < 1 << 63:
        raise DataError(f"seed {seed} is outside [0, 2**63): choose another")
    if order not in sample_order.ORDERS or decoder not in get_args(DecoderName):
        raise DataError(f"order {order!r} with decoder {decoder!r}: order is global or sequential, decoder dali or cpu")
    global_batch = batch_size * world_size
    if drop_last and global_batch > len(reader):
        raise DataError(
            f"a global batch of {global_batch} ({batch_size} x {world_size} ranks) is larger than the data set of "
            f"{len(reader)} images ({reader.paths[0]}): make batch_size smaller, or set drop_last=False"
        )
    where = choose_device(device)
    return Loader(
        reader, Position(seed, 0, 0, global_batch, len(reader), order), rank, world_size, drop_last, flip,
        _make_decoder(decoder, batch_size, image_size, num_threads, prefetch, where), prefetch, where, image_size,
    )  # fmt: skip


def choose_device(device: str | torch.device) -> torch.device:
    """ "auto" -> cuda where there is one, else cpu; "cuda" -> the current CUDA device, with its index.

    Raises:
        DataError: no such device here.
    """
    if str(device) == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise DataError(f"device {device!r} is unknown: use auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cpu":
        return torch.device("cpu")
    if chosen.type != "cuda" or not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count():
        raise DataError(f"device {str(device)!r} is not on this machine: use device='cpu' or 'auto'")
    return chosen if chosen.index is not None else torch.device("cuda", torch.cuda.current_device())


def _make_decoder(
    name: DecoderName, max_batch: int, image_size: int, num_threads: int, depth: int, device: torch.device
) -> Decoder:
    # Imported here: neither decoder's library is needed for the other.
    if name == "dali":
        from data_pipeline.decode_dali import DaliDecoder

        return DaliDecoder(max_batch, image_size, num_threads, depth, device)
    from data_pipeline.decode_cpu import PillowDecoder

    return PillowDecoder(image_size, num_threads, device)
