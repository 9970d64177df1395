"""Thresholds for an exported network, calibrated on pairs.

Two faces are taken for the same if their cosine >= the threshold, or their distance (of unit embeddings) <= sqrt(2 - 2
cosine): FaceRecognizerSF's FR_COSINE and FR_NORM_L2. OpenCV's .363 and 1.128 belong to its own model alone.

P pairs, S image side, D embedding_dim.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data_pipeline.pairs import Pairs
from trainer.evaluation import VerificationResult, verify
from trainer.evaluation.embed import decode_images
from trainer.evaluation.operating_points import operating_points
from trainer.evaluation.roc import FAR_TARGETS
from trainer.export.targets import Target

BATCH = 64


@dataclass(frozen=True)
class Threshold:
    """far: at most this share of different pairs is accepted. tar: the share of same pairs that is."""

    far: str
    cosine: float
    distance: float
    tar: float


@dataclass(frozen=True)
class Calibration:
    """From one pair set. best: the cosine that separates it best. flip_test: embeddings were sums over an image and its
    mirror image, so that cosines are somewhat higher than those of one view, which is what the exported file gives.
    """

    pairs: str
    number_of_pairs: int
    flip_test: bool
    accuracy: float
    best: float
    at_far: tuple[Threshold, ...]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"best_distance": distance_of(self.best)}


def calibrate(result: VerificationResult, *, flip_test: bool) -> Calibration:
    """Thresholds at FAR 1e-1 to 1e-4, those of them that ``result`` has enough different pairs for."""
    at_far = tuple(
        Threshold(point.target, point.threshold, distance_of(point.threshold), point.tar)
        for point in operating_points(result.scores.astype(np.float64), result.same, FAR_TARGETS)
        if point.threshold is not None and point.tar is not None
    )
    return Calibration(result.name, result.pairs, flip_test, result.accuracy_mean, result.threshold, at_far)


def distance_of(cosine: float) -> float:
    """|a - b| of unit vectors with that cosine."""
    return math.sqrt(max(0.0, 2.0 - 2.0 * cosine))


def judge(name: str, pairs: Pairs, target: Target) -> VerificationResult:
    """``pairs`` as the exported file will see them: one view of each image. Raises DataError for a broken image."""
    embeddings = []
    for first in tqdm(range(0, len(pairs.jpegs), BATCH), desc=name, unit="batch", disable=None):
        images = decode_images(pairs.jpegs[first : first + BATCH], target.size, name=name, first=first)
        embeddings.append(embed(target.module, target.to_input(images)))
    units = nn.functional.normalize(torch.cat(embeddings).double(), eps=1e-300).numpy()
    return verify(name, np.sum(units[0::2] * units[1::2], axis=1).clip(-1.0, 1.0), pairs.same)


def embed(module: nn.Module, images: Tensor) -> Tensor:
    """[B, D] of [B, 3, S, S], copied out of inference mode."""
    with torch.inference_mode():
        embeddings: Tensor = module(images)
    return embeddings.clone()
