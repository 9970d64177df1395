"""The loaders that ``pfc bench data`` compares, each as an endless row of image batches.

Shapes: B batch size, H = W image size.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from data_pipeline import RecordReader, make_loader
from data_pipeline.decoders import choose_device
from data_pipeline.image_size import jpeg_size
from trainer.bench.bare_dali import BareDali, write_filtered_index
from trainer.bench.data_problem import BARE, BARE_FLIP, FLIPPED, LOADER_CPU, PIL, DataEffort
from trainer.bench.pil_dataset import pil_loader

_SAMPLE = 1000


class Contestants:
    """Makes loaders over ``reader``; ``folder`` takes DALI's index. All hand out [B, 3, H, W] float32 on one device."""

    def __init__(self, reader: RecordReader, effort: DataEffort, folder: Path) -> None:
        self._reader = reader
        self._effort = effort
        self._index = folder / "images.idx"
        self._device = choose_device(effort.device)
        write_filtered_index(reader, self._index)
        # The work must be equal: whoever gets images of another size resizes them.
        right, count = (effort.image_size, effort.image_size), len(reader)
        places = range(0, count, max(1, count // _SAMPLE))
        self._resize = any(jpeg_size(reader[place].jpeg) != right for place in places)

    def build(self, method: str) -> Iterator[torch.Tensor]:
        """The images of one method, batch after batch without end."""
        effort, flip = self._effort, method in FLIPPED
        if method == PIL:
            return self._from_pil()
        if method in (BARE, BARE_FLIP):
            return BareDali(
                self._reader,
                self._index,
                batch_size=effort.batch_size,
                image_size=effort.image_size,
                threads=effort.threads,
                prefetch=effort.prefetch,
                device=self._device,
                flip=flip,
                resize=self._resize,
                seed=effort.seed,
            )
        return self._from_loader("cpu" if method == LOADER_CPU else "dali", flip)

    def settle(self) -> None:
        """Wait for the device: a batch counts when it is there."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _from_loader(self, decoder: str, flip: bool) -> Iterator[torch.Tensor]:
        effort = self._effort
        loader = make_loader(
            self._reader,
            batch_size=effort.batch_size,
            seed=effort.seed,
            decoder="dali" if decoder == "dali" else "cpu",
            device=self._device,
            image_size=effort.image_size,
            flip=flip,
            num_threads=effort.threads,
            prefetch=effort.prefetch,
        )
        while True:
            for batch in loader:
                yield batch.images

    def _from_pil(self) -> Iterator[torch.Tensor]:
        on_gpu = self._device.type == "cuda"
        effort = self._effort
        loader = pil_loader(
            self._reader,
            image_size=effort.image_size,
            batch_size=effort.batch_size,
            workers=effort.workers,
            seed=effort.seed,
            pin_memory=on_gpu,
        )
        for images, _ in loader:
            yield images.to(self._device, non_blocking=True)
