"""Face images to unit embeddings, with flip test.

Shapes: M images, S image side, D embedding_dim.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from data_pipeline.decode_image import decode_image
from data_pipeline.errors import DataError


def decode_images(encoded: Sequence[bytes], image_size: int, *, name: str, first: int = 0) -> Tensor:
    """By Pillow: encoded images -> [M, 3, S, S] uint8 RGB, resized where needed. ``first``: number of the first
    one, for messages.

    Raises:
        DataError: an image that cannot be decoded; names the set and the image.
    """
    images = torch.empty(len(encoded), 3, image_size, image_size, dtype=torch.uint8)
    for place, each in enumerate(encoded):
        try:
            picture = decode_image(each, image_size)
        except ValueError as error:
            number = first + place
            raise DataError(
                f"pairs {name}: image {number} (pair {number // 2}) cannot be decoded: {error}; remove the pair"
            ) from error
        images[place] = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return images


def embed_images(module: nn.Module, images: Tensor, *, batch_size: int, device: torch.device) -> Tensor:
    """[M, 3, S, S] uint8 -> [M, D] float32 on the CPU:  e = f(x) + f(flip x);  e / |e|  (0 stays 0).

    The module runs in evaluation mode and is left in the mode it was in. M = 0 gives [0, D].
    """
    parts = []
    with evaluation_mode(module), torch.inference_mode():
        # No images: one black one tells D, and its embedding is cut off below.
        some = images if len(images) else images.new_zeros(1, *images.shape[1:])
        for batch in torch.split(some, batch_size):
            x = batch.to(device).float().sub_(127.5).div_(127.5)
            embedding = module(x) + module(x.flip(3))
            # float64, because an untrained network's embeddings are so large that their square overflows float32.
            parts.append(nn.functional.normalize(embedding.cpu().double(), eps=1e-300).float())
    # Copied outside of inference mode, so that the caller gets an ordinary tensor.
    return torch.cat(parts)[: len(images)].clone()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """``module.eval()`` for a while; afterwards every submodule has its own mode back."""
    training = [submodule for submodule in module.modules() if submodule.training]
    module.eval()
    try:
        yield
    finally:
        for submodule in training:
            submodule.training = True
