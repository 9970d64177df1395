"""What weight decay and momentum do to every row alike: a few numbers instead of a pass over all centers.

With center w, momentum buffer m, rate lr, momentum factor mu and weight decay wd, torch.optim.SGD steps

    m <- mu*m + g + wd*w        w <- w - lr*m

Write m = carry*w + e: of the momentum, ``carry`` times the center itself is the same for every row. A step then is

    beta = mu*carry + wd    gamma = 1 - lr*beta    e <- (mu*e + g)/gamma    w <- gamma*(w - lr*e)    carry <- beta/gamma

With w = scale*W and e = E/scale, where scale is the product of all gammas, weight decay is gone:

    E <- mu*E + scale*g        W <- W - rate*E        rate = lr/(scale_before*scale_after)

and scale*g is the gradient with respect to W, as the loss knows directions alone. A row without a gradient moves until
its E, which shrinks by mu a step, has died away: by ``travel`` * E, travel(age) = sum of rate*mu^k over the steps.
A row that never had a gradient has E = 0 and needs nothing at all.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from partial_fc.row_tables import Motion

ROUNDING = 2.0**-21  # of a row: less movement than this is made at once, and what a new rate would change of it ignored
NEGLIGIBLE = 1e-10  # mu^age after which a slot expires at the latest
HEADROOM = 1.25  # rates may grow this much before the bounds on rows in motion are renewed
SMALLEST_GAMMA = 0.5  # below, the split of m loses digits: the step is taken on dense rows
SMALLEST_SCALE = 2.0**-12
PATIENT_SHARE = 9.0  # momentum that came to rest under a small factor would move on under this one, 0.9
PATIENT_RATE = 0.01  # a row comes to rest only when it would move no more at this rate, or the highest so far


@dataclass
class SharedMotion:
    """The numbers above. bound: rate that bounds on rows in motion allow for. peak: highest lr. ages: travel by age."""

    scale: float = 1.0
    carry: float = 0.0
    factor: float = 0.0
    bound: float = 0.0
    rate: float = 0.0
    peak: float = PATIENT_RATE
    ages: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    _decay: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def longest(self) -> int:
        """Ages that the table covers, and slots live at most."""
        return len(self.ages) - 1

    @property
    def decay(self) -> Tensor:
        """[ages] float64: factor^age; the same tensor until the factor changes."""
        if self._decay is None:
            self._decay = self.factor ** torch.arange(len(self.ages), dtype=torch.float64)
        return self._decay

    def start_factor(self, factor: float) -> None:
        """Use another momentum factor; every row in motion must have been brought to now."""
        longest = 1 if factor == 0.0 else math.ceil(math.log(NEGLIGIBLE) / math.log(min(factor, 0.9999)))
        if self.factor == 0.0:
            self.carry = 0.0  # torch.optim.SGD has no momentum buffer then
        self.factor = factor
        self.ages = torch.zeros(longest + 1, dtype=torch.float64)
        self._decay = None
        self.bound = -1.0  # none yet

    def gamma(self, lr: float, weight_decay: float) -> float:
        """What the next step multiplies every center with."""
        return 1.0 - lr * (self.factor * self.carry + weight_decay)

    def advance(self, lr: float, weight_decay: float) -> None:
        """Take the shared part of a step: afterwards ``rate`` is that of the step."""
        gamma = self.gamma(lr, weight_decay)
        self.peak = max(self.peak, lr)
        self.carry = (self.factor * self.carry + weight_decay) / gamma
        self.rate = lr / (self.scale * self.scale * gamma)
        self.scale *= gamma

    def age(self) -> None:
        """All rows not touched in this step are a step older: travel(a) <- travel(a - 1) + rate * factor^a."""
        older = torch.zeros_like(self.ages)  # not in place: a saved state may hold the old one
        torch.add(self.ages[:-1], self.decay[1:], alpha=self.rate, out=older[1:])
        self.ages = older

    @property
    def bound_is_off(self) -> bool:
        """Whether rates have left the range for which rows in motion were given their bounds."""
        return self.rate > self.bound or self.rate < self.bound / (HEADROOM * 4)

    def motion(self) -> Motion:
        """For the kernels, at the step's rate."""
        return Motion(
            rate=self.rate,
            momentum_factor=self.factor,
            reach=self.bound * self._rest_share,
            patient_reach=max(self.bound, self.peak / (self.scale * self.scale)) * max(self._rest_share, PATIENT_SHARE),
            rounding=ROUNDING,
            longest=self.longest,
        )

    @property
    def rest(self) -> float:
        """Movement still to come per unit of momentum, at the present rate."""
        return self.rate * self._rest_share

    @property
    def _rest_share(self) -> float:
        return self.factor / (1.0 - self.factor) if self.factor < 1.0 else math.inf

    def rescale(self, share: float) -> None:
        """Move ``share`` of the scale into the rows: W grows by it, E shrinks by it."""
        self.scale /= share
        self.ages = self.ages * (share * share)  # not in place: a saved state may hold the old one
        self.bound *= share * share
        self.rate *= share * share

    def state(self) -> dict[str, Any]:
        """To save."""
        names = ("scale", "carry", "factor", "bound", "rate", "peak")
        return {name: getattr(self, name) for name in names} | {"ages": self.ages}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "SharedMotion":
        """What :meth:`state` saved."""
        return cls(**state)
