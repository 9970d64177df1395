"""What OpenCV's FaceRecognizerSF feeds, turned into what the network wants, inside the exported graph.

Letters: B batch, S side of the network's images.

FaceRecognizerSF::feature hands on ``blobFromImage(aligned, 1, Size(112, 112), Scalar(0, 0, 0), swapRB = true)``:
float32 [1, 3, 112, 112], RGB, 0 to 255 (OpenCV, modules/objdetect/src/face_recognize.cpp).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ALIGNED_SIZE = 112


class OpenCVInput(nn.Module):
    """[B, 3, 112, 112] in 0..255 -> ``network`` of [B, 3, S, S] in [-1, 1].

    For S other than 112 images are resized like the training images, by Pillow's bilinear filter, but not rounded
    to whole grey values in between; as two products with constants, since programs differ in what Resize means.
    """

    def __init__(self, network: nn.Module, image_size: int) -> None:
        super().__init__()
        self.network = network
        self.resize: Tensor | None
        weights = None if image_size == ALIGNED_SIZE else torch.from_numpy(bilinear_weights(ALIGNED_SIZE, image_size))
        self.register_buffer("resize", weights)

    def forward(self, data: Tensor) -> Tensor:
        """Embed a batch."""
        x = (data - 127.5) * (1 / 127.5)
        if self.resize is not None:
            x = ((x @ self.resize).transpose(2, 3) @ self.resize).transpose(2, 3)
        out: Tensor = self.network(x)
        return out


def bilinear_weights(old: int, new: int) -> NDArray[np.float32]:
    """[old, new]: columns are Pillow's bilinear filter, a triangle as wide as max(1, old / new) pixels to either side
    about ``(i + 1/2) old / new``; each sums to 1.
    """
    width = max(1.0, old / new)
    centers = (np.arange(new) + 0.5) * old / new
    distance = np.abs(np.arange(old)[:, None] + 0.5 - centers) / width
    weights = np.maximum(0.0, 1.0 - distance)
    return np.ascontiguousarray(weights / weights.sum(axis=0), dtype=np.float32)
