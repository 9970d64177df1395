"""Images on which an exported file is compared with its network: random ones, and real ones where some are at hand.

Letters: M images, S side of the target's input.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data_pipeline import DataError, RecordReader
from data_pipeline.decode_image import decode_image
from data_pipeline.pairs import read_pairs
from trainer.config import Config
from trainer.evaluation.embed import decode_images

RANDOM, REAL = 4, 8


@dataclass(frozen=True)
class SampleImages:
    """images: [M, 3, S, S] uint8 RGB. origin: in words."""

    images: Tensor
    origin: str


def draw_samples(config: Config | None, pairs: tuple[Path, ...], size: int) -> SampleImages:
    """Random pixels and the first images of ``pairs``, else of the run's own pairs or records if they still exist."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (RANDOM, 3, size, size), generator=generator, dtype=torch.uint8)
    for place in (*pairs, *(_of_run(config) if config else ())):
        with suppress(DataError, OSError, ValueError):
            images = _first_images(place, size)
            if len(images):
                name = place.parent.name if place.name == "train.rec" else place.name
                origin = f"{RANDOM} random and {len(images)} real images ({name})"
                return SampleImages(torch.cat((noise, images)), origin)
    return SampleImages(noise, f"{RANDOM} random images; no real one is at hand: give --pairs FILE.bin")


def _of_run(config: Config) -> tuple[Path, ...]:
    with suppress(DataError, OSError):
        return (*config.evaluation.pairs, *config.data.record_files())
    return config.evaluation.pairs


def _first_images(path: Path, size: int) -> Tensor:
    if path.suffix == ".bin":
        return decode_images(read_pairs(path).jpegs[:REAL], size, name=path.stem)
    with RecordReader(path) as reader:
        pictures = [decode_image(reader[number].jpeg, size) for number in range(min(REAL, len(reader)))]
    return torch.stack([torch.from_numpy(picture.copy()).permute(2, 0, 1) for picture in pictures])
