"""Encoded images through the decoder of training, kept as pixels for more than one use.

Shapes: M images, S image side.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from data_pipeline.decoded_images import decoded_batches
from trainer.evaluation.image_sources import Decoding

BATCH = 64


def keep_images(encoded: Sequence[bytes], how: Decoding, *, name: str, first: int = 0) -> Tensor:
    """[M, 3, S, S] uint8 RGB on the CPU, resized where needed. first: number of the first image, for messages.

    Raises:
        DataError: an image that cannot be decoded; names the set, the image and its pair.
    """
    kept = torch.empty(len(encoded), 3, how.image_size, how.image_size, dtype=torch.uint8)
    places = np.arange(len(encoded))
    batches = [places[low : low + BATCH] for low in range(0, len(places), BATCH)]

    def describe(place: int) -> str:
        number = first + place
        return f"pairs {name}: image {number} (pair {number // 2})"

    done = 0
    for images in decoded_batches(
        batches, lambda positions: [encoded[place] for place in positions.tolist()], describe,
        decoder=how.decoder, device=how.device, image_size=how.image_size, num_threads=how.threads,
        prefetch=how.prefetch,
    ):  # fmt: skip
        kept[done : done + len(images)] = as_pixels(images)
        done += len(images)
    return kept


def as_pixels(images: Tensor) -> Tensor:
    """float32 in [-1, 1], as networks are fed -> uint8 on the CPU: what (x - 127.5) / 127.5 was made of."""
    return images.cpu().mul(127.5).add_(127.5).round_().to(torch.uint8)
