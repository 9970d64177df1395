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
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from data_pipeline.pairs import Pairs
from trainer.evaluation import VerificationResult, verify
from trainer.evaluation.embed import decode_images
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
    scores = result.scores.astype(np.float64)
    at_far = tuple(_at_far(scores, result.same, far) for far in FAR_TARGETS if _measurable(result.same, far))
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


def _measurable(same: NDArray[np.bool_], far: str) -> bool:
    return 1 / int(np.count_nonzero(~same)) <= float(far)


def _at_far(scores: NDArray[np.float64], same: NDArray[np.bool_], far: str) -> Threshold:
    """The lowest threshold that accepts at most the share ``far`` of different pairs: in the middle between the lowest
    score that it accepts and the next one below, so that rounding of another program changes no decision.
    """
    different = np.sort(scores[~same])[::-1]
    shares = np.arange(1, len(different) + 1) / len(different)
    passing = int(np.count_nonzero(shares <= float(far)))
    # FAR targets are below 1, so there is a first pair that must not pass.
    barrier = float(different[passing])
    accepted = scores[scores > barrier]
    cosine = (float(accepted.min()) + barrier) / 2 if len(accepted) else barrier
    if cosine <= barrier:  # nothing is above it, or nothing between
        cosine = float(np.nextafter(barrier, np.inf))
    return Threshold(far, cosine, distance_of(cosine), float(np.mean(scores[same] >= cosine)))
