"""Where the images of a protocol come from: aligned crops in a folder, a `.rec`, or loose crops with landmarks.

Shapes: B images of a batch, S image side.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_pipeline import RecordReader
from data_pipeline.decode_image import decode_image
from data_pipeline.decoded_images import decoded_batches
from data_pipeline.decoders import DecoderName
from data_pipeline.errors import DataError
from data_pipeline.image_header import announced_size
from trainer.evaluation.alignment import aligned_crop

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How images are opened: by which decoder of training, on how many threads, how many batches ahead."""

    image_size: int
    device: torch.device
    decoder: DecoderName = "dali"
    threads: int = 1
    prefetch: int = 2


class ImageSource(Protocol):
    """Numbered images: ``batches`` opens those at given positions, [B, 3, S, S] float32 RGB in [-1, 1] each time.

    Raises DataError, of ``check`` for images that are not there, of ``batches`` for those that cannot be used.
    """

    def __len__(self) -> int: ...

    def check(self, positions: Positions) -> None:
        """Whether these images are there, before any is opened."""

    def batches(self, batches: Sequence[Positions], how: Decoding) -> Iterator[Tensor]:
        """The images of each batch."""


@dataclass(frozen=True, eq=False)
class FileImages:
    """Aligned crops: ``paths`` below ``root``."""

    root: Path
    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.paths)

    def check(self, positions: Positions) -> None:
        """Raises DataError for missing files: how many, and the first."""
        check_files(self.root, [self.paths[place] for place in positions.tolist()])

    def batches(self, batches: Sequence[Positions], how: Decoding) -> Iterator[Tensor]:
        """Through the decoder of training; an image that is not square is refused, another size resized."""

        def read(positions: Positions) -> list[bytes]:
            return [aligned(self._read(place), self._describe(place)) for place in positions.tolist()]

        return _decoded(batches, read, self._describe, how)

    def _describe(self, place: int) -> str:
        return f"image {self.root / self.paths[place]}"

    def _read(self, place: int) -> bytes:
        return read_file(self.root / self.paths[place])


@dataclass(frozen=True, eq=False)
class RecordImages:
    """Aligned crops: the images of a `.rec`, by their position."""

    reader: RecordReader

    def __len__(self) -> int:
        return len(self.reader)

    def check(self, positions: Positions) -> None:
        """The index has told already."""

    def batches(self, batches: Sequence[Positions], how: Decoding) -> Iterator[Tensor]:
        """Through the decoder of training; an image that is not square is refused, another size resized."""

        def read(positions: Positions) -> list[bytes]:
            _, images = self.reader.read_batch(positions)
            return [
                aligned(image, self._describe(place)) for image, place in zip(images, positions.tolist(), strict=True)
            ]

        return _decoded(batches, read, self._describe, how)

    def _describe(self, place: int) -> str:
        return f"image {place} ({self.reader.describe(place)})"


@dataclass(frozen=True, eq=False)
class LooseCrops:
    """Photos around a face with its five landmarks [N, 5, 2], aligned to the ArcFace template while they are opened."""

    root: Path
    paths: Sequence[str]
    landmarks: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.paths)

    def check(self, positions: Positions) -> None:
        """Raises DataError for missing files: how many, and the first."""
        check_files(self.root, [self.paths[place] for place in positions.tolist()])

    def batches(self, batches: Sequence[Positions], how: Decoding) -> Iterator[Tensor]:
        """On ``how.threads`` threads, by the function that the decoder "cpu" opens images with."""
        upcoming = iter(batches)
        with ThreadPoolExecutor(how.threads, thread_name_prefix="align") as threads:

            def start(positions: Positions) -> list[Future[Tensor]]:
                return [threads.submit(self._open, place, how.image_size) for place in positions.tolist()]

            ahead = deque(map(start, islice(upcoming, how.prefetch + 1)))
            try:
                while ahead:
                    images = torch.stack([each.result() for each in ahead.popleft()])
                    ahead.extend(map(start, islice(upcoming, 1)))
                    yield images.to(how.device).sub_(127.5).mul_(1 / 127.5)
            finally:
                for each in (image for batch in ahead for image in batch):
                    each.cancel()

    def _open(self, place: int, side: int) -> Tensor:
        path = self.root / self.paths[place]
        try:
            return aligned_crop(decode_image(read_file(path)), self.landmarks[place], side)
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"image {path} cannot be used: {error}; remove or replace it") from None


def aligned(encoded: bytes, name: str) -> bytes:
    """The image, if its header announces a square: an aligned crop.

    Raises:
        DataError: another shape: the image was not aligned, and resizing would squeeze the face.
    """
    size = announced_size(encoded)
    if size is not None and size[0] != size[1]:
        raise DataError(
            f"{name} is {size[1]}x{size[0]} pixels: aligned crops are square; align and crop the faces first"
        )
    return encoded


def read_file(path: Path) -> bytes:
    """The bytes of an image file. Raises DataError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"image {path} cannot be read ({error.strerror}); remove it from the list") from None


def check_files(root: Path, paths: Sequence[str]) -> None:
    """Raises DataError where some are no files: how many of them, and the first."""
    missing = [path for path in paths if not os.path.isfile(os.path.join(root, path))]  # noqa: PTH113, PTH118
    if missing:
        raise DataError(
            f"{root / missing[0]}: no such image ({len(missing)} of {len(paths)} are missing); "
            "complete the folder, or name the one that the images are in"
        )


def _decoded(batches: Sequence[Positions], read: "_Read", describe: "_Describe", how: Decoding) -> Iterator[Tensor]:
    return decoded_batches(
        batches, read, describe, decoder=how.decoder, device=how.device, image_size=how.image_size,
        num_threads=how.threads, prefetch=how.prefetch,
    )  # fmt: skip


class _Read(Protocol):
    def __call__(self, positions: Positions) -> list[bytes]: ...


class _Describe(Protocol):
    def __call__(self, place: int) -> str: ...
