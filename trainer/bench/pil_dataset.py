"""The training script that users start from: records decoded one by one by PIL in a torch DataLoader."""

import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from data_pipeline import RecordReader


class PilDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images of ``reader`` as float32 [3, H, W] in [-1, 1], half of them mirrored, with their identities."""

    def __init__(self, reader: RecordReader, image_size: int) -> None:
        self._reader = reader
        self._size = (image_size, image_size)

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self._reader[index]
        image = Image.open(io.BytesIO(record.jpeg)).convert("RGB")
        if image.size != self._size:
            image = image.resize(self._size, Image.Resampling.BILINEAR)
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().sub_(127.5).div_(127.5), record.identity


class EndlessShuffle(Sampler[int]):
    """Positions in random order, one permutation after another: no pause between epochs."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(self._count, generator=self._generator).tolist()


def pil_loader(
    reader: RecordReader, *, image_size: int, batch_size: int, workers: int, seed: int, pin_memory: bool
) -> DataLoader[tuple[torch.Tensor, int]]:
    """A DataLoader over ``reader`` that never ends."""
    return DataLoader(
        PilDataset(reader, image_size),
        batch_size=batch_size,
        sampler=EndlessShuffle(len(reader), seed),
        num_workers=workers,
        # Started afresh, because a fork of a process with DALI's threads may hang.
        multiprocessing_context="forkserver" if workers else None,
        pin_memory=pin_memory,
    )
