"""Billions of scores in 8 MiB: how many lie in each of 2^20 equal bins of [-1, 1].

All cosines of a probe set with a million distractors do not fit in memory; their counts do, and counts of ranks add
up exactly. What it costs: a threshold is a bin's edge, so it may be up to ``BIN_WIDTH`` = 2^-19 (1.9e-6) higher than
the lowest one that is allowed. The FAR given for it is exact and never above the target; the TAR is too low by at most
the share of same pairs in the one bin below the edge, which ``operating_points`` reports as ``tar_error``.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.evaluation.operating_points import OperatingPoint, unmeasurable
from trainer.evaluation.roc import FloatArray

BINS = 1 << 20
BIN_WIDTH = 2.0 / BINS


class ScoreHistogram:
    """counts: [BINS] int64; bin i holds the scores of [-1 + i w, -1 + (i + 1) w), w = BIN_WIDTH, the last also 1."""

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, dtype=torch.int64)

    def add(self, scores: Tensor) -> None:
        """Count finite scores of any shape; those beyond [-1, 1] by rounding go to the outermost bins."""
        # A product with a power of two is exact, and so is its floor: no score crosses an edge by rounding.
        bins = (scores * (BINS // 2)).floor_().to(torch.int64).add_(BINS // 2).clamp_(0, BINS - 1)
        self.counts += torch.bincount(bins.flatten(), minlength=BINS).cpu()

    @property
    def total(self) -> int:
        """Scores counted."""
        return int(self.counts.sum())

    def operating_points(self, genuine: FloatArray, targets: Sequence[str]) -> list[OperatingPoint]:
        """As ``operating_points.operating_points``, of different pairs counted here and the scores of same pairs."""
        at_least = self._at_least()
        total = int(at_least[0])
        ordered = np.sort(genuine)
        found = []
        for target in targets:
            limit = float(target)
            if not total or 1 / total > limit:
                found.append(unmeasurable(target))
                continue
            edge = int(np.argmax(at_least / total <= limit))  # the lowest one: at_least falls
            threshold = -1.0 + edge * BIN_WIDTH
            missed = int(np.searchsorted(ordered, threshold, side="left"))
            below = int(np.searchsorted(ordered, threshold - BIN_WIDTH, side="left")) if edge else missed
            found.append(
                OperatingPoint(
                    target,
                    threshold,
                    int(at_least[edge]) / total,
                    1 - missed / len(ordered),
                    int(at_least[edge]),
                    (missed - below) / len(ordered),
                )
            )
        return found

    def curve(self, genuine: FloatArray, points: int = 1000) -> tuple[FloatArray, FloatArray]:
        """FAR and TAR at no more than ``points`` edges, thresholds falling; even steps of log FAR, then of FAR."""
        at_least = self._at_least()
        total = int(at_least[0])
        far = at_least[::-1] / total
        steps = np.concatenate((np.geomspace(1 / total, 1.0, points // 2), np.linspace(0.0, 1.0, points - points // 2)))
        places = np.unique(np.searchsorted(far, steps * (1 + 1e-12), side="right") - 1)
        places = np.unique(np.append(places.clip(min=0), len(far) - 1))
        thresholds = -1.0 + (BINS - places) * BIN_WIDTH
        ordered = np.sort(genuine)
        tar = 1 - np.searchsorted(ordered, thresholds, side="left") / len(ordered)
        return far[places], tar

    def _at_least(self) -> NDArray[np.int64]:
        """[BINS + 1]: how many scores are at or above the lower edge of each bin; the last is 0."""
        counts = self.counts.numpy()
        return np.append(np.cumsum(counts[::-1])[::-1], 0)
