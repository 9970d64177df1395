"""Centers and embeddings as they lie in the phases of a training: what the head's accuracy tests are fed.

A unit center is lean * d + sqrt(1 - lean**2) * own: d is a direction shared by all, own a vector of length about 1 in
an m-dimensional subspace, so that cosines of two own parts spread by 1/sqrt(m).
Shape letters: C classes, D embedding size, m effective dimension, N batch.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

POSITIVE_ANGLE = 0.9  # rad, where SFace's a holds the positives of a model in training
SMALLEST_NORM, LARGEST_NORM = 8.0, 24.0  # of embeddings


@dataclass(frozen=True)
class Phase:
    """How a model's centers and embeddings lie at some point of its training.

    dimension: m. lean: cosine of each center with the shared direction d. collapsed: embeddings lie around d instead of
    around their own center. outside: what embeddings have beside their center is orthogonal to every center, so that
    cosines with the negatives differ little from each other.
    """

    name: str
    dimension: int
    lean: float = 0.0
    collapsed: bool = False
    outside: bool = False


STEADY = Phase("steady", 278)  # cosines of negatives spread 0.06, as in well-trained models
WEAK = Phase("weak", 100)  # 0.10, as in weak or early ones
COLLAPSE = Phase("collapse", 100, lean=0.8, collapsed=True)  # every pair at about 0.9 rad
# Nearly every coefficient is tiny, and all of a sample's push the same way. Mean cosines of the negatives 0.16 and
# 0.10: coefficients around scale * 2**-25 and scale * 2**-31, spread over 2**-21 to 2**-29 and 2**-27 to 2**-35.
SHARED = Phase("shared direction", 220, lean=0.5, outside=True)
FAINTLY_SHARED = Phase("faint shared direction", 220, lean=0.4, outside=True)


def on_one_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Sums round differently on more threads: every process of a test must draw the same faces."""

    @functools.wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(threads)

    return alone


class Faces:
    """One phase at one size, drawn from a seed. centers: [C, D] float32 of norms between 0.5 and 2."""

    @on_one_thread
    def __init__(self, phase: Phase, num_classes: int, embedding_dim: int, seed: int = 0) -> None:
        self.phase = phase
        self.generator = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(self._normal(embedding_dim, embedding_dim)).Q.T.contiguous()
        self.direction = axes[0]  # [D], the shared one
        self._inside, self._outside = axes[1 : phase.dimension + 1], axes[phase.dimension + 1 :]
        own = self._normal(num_classes, len(self._inside)) / math.sqrt(len(self._inside)) @ self._inside
        centers = math.sqrt(1.0 - phase.lean**2) * own + phase.lean * self.direction
        self.centers = centers * self._between(0.5, 2.0, num_classes)

    @on_one_thread
    def batch(self, centers: Tensor, size: int, identities: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The next batch, around ``centers`` [C, D] as they are now: embeddings [N, D] float32, identities [N] int64.

        Without ``identities``, random ones, of which the first two are the same.
        """
        if identities is None:
            identities = torch.randint(len(centers), (size,), generator=self.generator)
            identities[1:2] = identities[:1]
        if self.phase.collapsed:
            noise = self._normal(size, len(self._inside)) / math.sqrt(len(self._inside)) @ self._inside
            unit = self.phase.lean * self.direction + math.sqrt(1.0 - self.phase.lean**2) * noise
        else:
            own = normalize(centers[identities].float())
            axes = self._outside if self.phase.outside else self._inside
            unit = at_angle(own, self._normal(size, len(axes)) @ axes, POSITIVE_ANGLE)
        return unit * self._between(SMALLEST_NORM, LARGEST_NORM, size), identities

    def _normal(self, rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=self.generator)

    def _between(self, low: float, high: float, rows: int) -> Tensor:
        """[rows, 1], uniform on a logarithmic scale."""
        return low * (high / low) ** torch.rand(rows, 1, generator=self.generator)


def at_angle(unit: Tensor, towards: Tensor, angle: float | Tensor) -> Tensor:
    """Unit vectors [N, D] at ``angle`` rad, a number or [N, 1], from the unit rows in the plane through ``towards``."""
    sideways = normalize(towards - (towards * unit).sum(1, keepdim=True) * unit)
    turned = torch.as_tensor(angle)
    return torch.cos(turned) * unit + torch.sin(turned) * sideways
