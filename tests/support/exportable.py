"""Networks worth exporting, as state-dict files, and photos of faces with their five points."""

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from data_pipeline.synthetic import synthetic_photo
from trainer.backbones import BackboneConfig, build_backbone

Pictures = NDArray[np.uint8]  # [..., height, width, 3], BGR as OpenCV has them

# Where alignCrop puts the points (OpenCV, face_recognize.cpp); order: right eye, left eye, nose, mouth corners.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def calibrated(name: str, *, normalization: str = "batch", embedding_dim: int = 24, image_size: int = 32) -> nn.Module:
    """Random weights whose running statistics are those of some images, so that activations stay in range."""
    torch.manual_seed(7)
    config = BackboneConfig.model_validate(
        {"name": name, "normalization": normalization, "embedding_dim": embedding_dim}
    )
    module = build_backbone(config, image_size=image_size)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.momentum = 1.0
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    with torch.no_grad():
        module(torch.rand(8, 3, image_size, image_size) * 2 - 1)
    return module.eval()


def save_weights(path: Path, module: nn.Module) -> Path:
    torch.save(module.state_dict(), path)
    return path


def drawn_face(identity: int, image: int = 0, size: int = 112) -> Pictures:
    """[size, size, 3]."""
    with Image.open(io.BytesIO(synthetic_photo(3, identity, image, size))) as picture:
        return np.asarray(picture)[:, :, ::-1].copy()


def in_photo(face: Pictures, *, degrees: float, scale: float, size: int = 320) -> tuple[Pictures, NDArray[np.float32]]:
    """A photo in which the aligned ``face`` [112, 112, 3] is turned and enlarged, and the row of 15 numbers that
    FaceDetectorYN gives: box, five points, score."""
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shift = size / 2 - turn @ np.array([55.5, 55.5])
    back = np.linalg.inv(turn)
    # Pillow counts from the corner of the first pixel, OpenCV from its middle: p_old + .5 = back (p_new + .5) + offset.
    offset = 0.5 - back @ (shift + 0.5)
    coefficients = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    picture = Image.fromarray(face).transform(
        (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC, fillcolor=(90, 110, 130)
    )
    points = TEMPLATE @ turn.T + shift
    box = [*points.min(axis=0), *np.ptp(points, axis=0)]
    return np.asarray(picture).copy(), np.array([*box, *points.ravel(), 0.9], dtype=np.float32)


def as_tensor(pictures: Pictures) -> Tensor:
    """[M, 3, S, S] in 0..255, RGB."""
    return torch.from_numpy(np.ascontiguousarray(pictures[..., ::-1])).permute(0, 3, 1, 2).float()


def normalised(images: Tensor) -> Tensor:
    return (images - 127.5) / 127.5
