"""SFace: sigmoid-constrained hypersphere loss (Zhong et al., IEEE TIP 2021, arXiv 2205.12010).

Shape letters: N global batch, T classes of one tile.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def angle(cosine: Tensor) -> Tensor:
    """theta = arccos(c) in radians, elementwise.

    Rounded float32 cosines leave [-1, 1] (a third of all self-cosines do), where arccos is NaN: they are
    clamped first. The angle only ever feeds a coefficient without gradient, so the clamp hides none.
    """
    return torch.arccos(cosine.clamp(-1.0, 1.0))


@dataclass(frozen=True)
class SFace:
    """SFace with c = cos(theta) between an embedding and a class center; theta in radians.

        L = mean_i [ -s*sig(k(theta_y - a)) * c_y  +  sum_{j != y} s*sig(k(b - theta_j)) * c_j ]

    No gradient passes through the sigmoids (they are coefficients), so with N the global batch

        dL/dc_y = -(s/N) * sig(k(theta_y - a))        dL/dc_j = (s/N) * sig(k(b - theta_j))

    Each derivative depends on its own cosine alone: no softmax denominator, hence no all-reduce over classes.
    The value of L is usually negative and is not the integral of the gradient: do not select models by it.

    scale: s > 0. slope: k > 0. a: angle (rad) above which positives are pulled. b: angle (rad) below which
    negatives are pushed. Recommended: MS1MV2 a=0.90 b=1.20; CASIA-WebFace 0.87, 1.20; VGGFace2 0.88, 1.25.
    sampled_negative_weight: what a head with sample_rate < 1 does with a negative it has drawn. Without a
    denominator, nothing makes up for the negatives left out: unweighted ("none") the inter-class force shrinks to the
    sampled share r. "inverse", the default, multiplies both the coefficient and its part of the loss by the
    inverse probability of being drawn (1/r, and 1 for centers that are always in), so that their expectation is that
    of the full step, at a higher variance.
    Raises ValueError for values that are not finite or not positive, or another weight.
    """

    scale: float = 64.0
    slope: float = 80.0
    a: float = 0.90
    b: float = 1.20
    sampled_negative_weight: Literal["inverse", "none"] = "inverse"

    def __post_init__(self) -> None:
        for name in ("scale", "slope", "a", "b"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"SFace {name} must be a positive finite number, got {value}")
        if self.sampled_negative_weight not in ("inverse", "none"):
            raise ValueError(
                f'SFace sampled_negative_weight must be "inverse" or "none", got {self.sampled_negative_weight!r}'
            )

    def positive_coefficient(self, cosine: Tensor) -> Tensor:
        """s*sig(k(theta - a)), elementwise on cosines of samples with their own center: -N * dL/dc_y >= 0."""
        return self.scale * torch.sigmoid(self.slope * (angle(cosine) - self.a))

    def negative_coefficient(self, cosine: Tensor) -> Tensor:
        """s*sig(k(b - theta)), elementwise on cosines with other centers: N * dL/dc_j >= 0."""
        return self.scale * torch.sigmoid(self.slope * (self.b - angle(cosine)))
