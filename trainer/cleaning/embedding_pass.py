"""One pass over all images through the training pipeline's decoder: unit embeddings into one file, by all ranks.

M images in order of their identities, D embedding size. The file holds [M, D] float16: an angle is known to a
thousandth of a radian, and memory holds a batch, whatever M is. Rows of images that could not be used are NaN.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data_pipeline import RecordReader
from data_pipeline.listed import listed_batches
from partial_fc import partition
from trainer.config import DataConfig
from trainer.errors import ConfigError
from trainer.evaluation.embed import evaluation_mode
from trainer.world import World

Half = NDArray[np.float16]


def create_file(path: Path, images: int, embedding_dim: int) -> None:
    """An empty file of the right length."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(images, embedding_dim)).flush()


def open_file(path: Path) -> Half:
    """[M, D], to be read without taking memory."""
    found: Half = np.lib.format.open_memmap(path, mode="r")
    return found


def embed_into(
    path: Path, positions: NDArray[np.int64], reader: RecordReader, backbone: nn.Module, data: DataConfig,
    *, batch_size: int, world: World,
) -> None:  # fmt: skip
    """Fill this rank's part of the file with the images at ``positions`` [M], not augmented, without flip.

    Raises ConfigError for embeddings that are not finite, DataError for an image that cannot be decoded where the
    run's configuration does not pass such images over.
    """
    begin, end = partition(len(positions), world.world_size, world.rank)
    rows = np.lib.format.open_memmap(path, mode="r+")
    mine, place = positions[begin:end], begin
    batches = listed_batches(
        reader, mine, batch_size=batch_size, decoder=data.decoder, device=world.device, image_size=data.image_size,
        num_threads=data.threads, prefetch=data.prefetch, bad_images=data.bad_images,
        max_bad_images=data.max_bad_images, wrong_size=data.wrong_size,
    )  # fmt: skip
    with evaluation_mode(backbone), torch.inference_mode():
        for batch in batches:
            embeddings = backbone(batch.images).cpu().double()
            if not bool(embeddings.isfinite().all()):
                raise ConfigError(
                    "the network's embeddings are not finite: it has diverged, take an earlier checkpoint"
                )
            units = nn.functional.normalize(embeddings, eps=1e-300).numpy().astype(np.float16)
            # A stand-in for a bad image is somebody else's.
            units[batch.indices.cpu().numpy() != positions[place : place + len(units)]] = np.nan
            rows[place : place + len(units)] = units
            place += len(units)
    rows.flush()
