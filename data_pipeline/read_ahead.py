"""Reading ahead for ``order = "blocks"``: the disk sees whole blocks, one after the other.

Images are wanted in shuffled order but lie in blocks, so the kernel is told in time which stretches to read into the
page cache: all blocks of the window in use and, while it is being used up, block by block those of the next one. It
reads them in the background, shared by all ranks of a machine; a record is then found in memory. Where the kernel knows
no such hint, nothing is lost but the speed.
"""

import numpy as np

from data_pipeline.blocks import BlockOrder, BlockShape
from data_pipeline.reader import RecordReader


class WindowReadAhead:
    """Follows the places that a loader reads, and asks for each block once in time."""

    def __init__(self, reader: RecordReader, seed: int, shape: BlockShape) -> None:
        self._reader = reader
        self._seed = seed
        self._shape = shape
        self._epoch = -1
        self._place = 0  # of the epoch, where the batch reached last begins
        self._asked = 0  # blocks of the epoch's order asked for, or passed over

    def reach(self, epoch: int, start: int, stop: int) -> None:
        """The loader is about to read images at places [start, stop) of ``epoch``."""
        if epoch != self._epoch or start < self._place:
            self._order = BlockOrder(len(self._reader), self._seed, epoch, self._shape)
            self._epoch, self._asked = epoch, 0
        self._place = start
        first, last = self._order.window_at(np.array([start, stop - 1])).tolist()
        places = self._order.places_of(last)
        used = (stop - places.start) / len(places)
        wanted = min(round((last + 1 + used) * self._shape.window), self._order.num_blocks)
        begin = max(first * self._shape.window, self._asked)
        for block in self._order.blocks_at(np.arange(begin, wanted)).tolist():
            images = self._order.images_of(block)
            self._reader.will_need(images.start, images.stop)
        self._asked = max(wanted, self._asked)
