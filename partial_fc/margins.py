"""Margin softmax losses: CombinedMargin and its two special cases, ArcFace and CosFace.

References: ArcFace, Deng et al., CVPR 2019, arXiv 1801.07698; CosFace, Wang et al., CVPR 2018, arXiv 1801.09414.
Shape letters: N global batch.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from partial_fc.sface import angle


@dataclass(frozen=True)
class CombinedMargin:
    """Softmax cross-entropy over scaled cosines, the positive one made harder by up to three margins.

    With c = cos(theta) between an embedding and a class center, y the sample's identity and s the scale:

        z_j = s * c_j  (j != y)        z_y = s * (psi(m1 * theta_y + m2) - m3)
        L = mean_i [ log(sum_j exp(z_j)) - z_y ]        p = softmax(z)

    The derivative is exact, with N the global batch (InsightFace instead leaves the margin out of it, ds/dc = s):

        dL/dc_j = s * p_j / N        dL/dc_y = -(s/N) * (1 - p_y) * dpsi/dc_y
        dpsi/dc_y = m1 * |sin(m1 * theta_y + m2)| / sin(theta_y)        (exactly 1 for m1 = 1, m2 = 0)

    psi(t) is cos(t) up to t = pi, so there L is InsightFace's. Beyond pi, cos rises again and its exact derivative
    would push a sample *away* from its own center. So psi goes on falling, (-1)^k cos(t) - 2k with k = floor(t / pi),
    with a continuous derivative. ``monotone=False`` asks for plain cos(t), and for sin(t) without the bars.
    The value is the whole cross-entropy: no probability is clamped, so it does not saturate.

    At sin(theta) = 0 the sample has no direction in which to turn. There, and wherever sin(theta) is below what
    cosines of their type resolve, sqrt(2 eps) (5e-4 in float32), it is replaced by that bound: dpsi/dc stays finite.

    scale: s > 0. m1 > 0, m2 >= 0 (rad), m3 >= 0. interclass_filter: negatives with a cosine above it (likely the same
    person under a second identity) are dropped from the sum; positives are always kept. In (-1, 1); None drops none.
    InsightFace sets such a cosine to 0 instead of dropping it. Raises ValueError for values outside these ranges.
    """

    scale: float = 64.0
    m1: float = 1.0
    m2: float = 0.0
    m3: float = 0.0
    interclass_filter: float | None = None
    monotone: bool = True

    def __post_init__(self) -> None:
        for name, value in (("scale", self.scale), ("m1", self.m1)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{type(self).__name__} {name} must be a positive finite number, got {value}")
        for name, value in (("m2", self.m2), ("m3", self.m3)):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{type(self).__name__} margin {name} must be finite and at least 0, got {value}")
        if self.interclass_filter is not None and not -1.0 < self.interclass_filter < 1.0:
            raise ValueError(
                f"{type(self).__name__} interclass_filter is a cosine in (-1, 1), got {self.interclass_filter}; "
                "use None to keep all negatives"
            )

    def positive_logit(self, cosine: Tensor) -> Tensor:
        """z_y, elementwise on cosines of samples with their own center."""
        if not self._turns:
            return (cosine - self.m3) * self.scale
        moved = self.m1 * angle(cosine) + self.m2
        if not self.monotone:
            return (torch.cos(moved) - self.m3) * self.scale
        half_turns = torch.floor(moved / math.pi)
        return (self._sign(half_turns) * torch.cos(moved) - 2.0 * half_turns - self.m3) * self.scale

    def positive_slope(self, cosine: Tensor) -> Tensor:
        """dpsi/dc_y = (dz_y/dc_y) / s, elementwise; finite everywhere, and never negative if ``monotone``."""
        if not self._turns:
            return torch.ones_like(cosine)
        theta = angle(cosine)
        sine = torch.sin(theta).clamp_min(math.sqrt(2.0 * torch.finfo(cosine.dtype).eps))
        rise = torch.sin(self.m1 * theta + self.m2)
        return self.m1 * (rise.abs() if self.monotone else rise) / sine

    @property
    def _turns(self) -> bool:
        return self.m1 != 1.0 or self.m2 != 0.0

    @staticmethod
    def _sign(half_turns: Tensor) -> Tensor:
        return 1.0 - 2.0 * (half_turns % 2.0)


class ArcFace(CombinedMargin):
    """Additive angular margin: z_y = s * cos(theta_y + margin), ``CombinedMargin(scale, m2=margin)``.

    scale: s > 0. margin: rad. dL/dc_y = -(s/N) * (1 - p_y) * |sin(theta_y + margin)| / sin(theta_y), exact.
    Raises ValueError as :class:`CombinedMargin` does.
    """

    def __init__(
        self,
        scale: float = 64.0,
        margin: float = 0.5,
        *,
        interclass_filter: float | None = None,
        monotone: bool = True,
    ) -> None:
        super().__init__(scale, m2=margin, interclass_filter=interclass_filter, monotone=monotone)


class CosFace(CombinedMargin):
    """Additive cosine margin: z_y = s * (cos(theta_y) - margin), ``CombinedMargin(scale, m3=margin)``.

    scale: s > 0. margin: as a cosine; 0.4 is InsightFace's, the paper took 0.35. dL/dc_y = -(s/N) * (1 - p_y), exact.
    Raises ValueError as :class:`CombinedMargin` does.
    """

    def __init__(self, scale: float = 64.0, margin: float = 0.4, *, interclass_filter: float | None = None) -> None:
        super().__init__(scale, m3=margin, interclass_filter=interclass_filter)
