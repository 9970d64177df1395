"""How much may be dropped: the cut that keeps the estimated error of the batch's gradient under the tolerance.

With w = classes / sampled classes, the squared norm of what a cut at level l drops from the embeddings' gradient is

    drop(l) = w * sum_dropped d^2 sin^2 / |x|^2  +  chi * mass(l)

single pairs, which point anywhere, and their cross terms, which grow with the square of the dropped mass: chi is the
mean cosine between dropped centers, weighted as they are, where it stands out from chance. Rare pairs that no sample
has met count as one pair at the cut. For the centers' gradient the drop is w * (force of the sampled centers).
Both are put in relation to the norm of the gradient itself; the larger quotient is the error.
"""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from partial_fc.drop_sample import LEVELS, DropSums, level_cut

SURE_TARGET, BLIND_TARGET = 0.85, 0.5  # shares of the tolerance to aim at, with many and without dropped pairs met
ENOUGH_MET = 10.0  # pairs just below the cut that halve the distance between the two, nearly
MEMORY = 1 / 8  # weight of a new step in the running means
SURPRISE = 3.0  # a step whose dropped force differs by more than this factor starts the running means anew
SIGNIFICANT = 1.5  # standard deviations of chance that coherence must exceed
SLACK_LEVELS = 4  # pairs down to so many levels below the cut reach it by their bound
DENSE_SHARE = 0.03  # of all pairs scored, above which the dense path is cheaper
HYSTERESIS = 0.6
VARIANCES = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)  # powers of a weight: of a mean, of two variances
NEXT_LEVELS = torch.arange(LEVELS) + 4  # two octaves below the cut lie the pairs whose loss matters


@dataclass(frozen=True)
class Decision:
    """What a step does. level: of the cut. dropped_embedding, dropped_center: estimated squared norms of what is lost.

    mass_share: mass that the chosen level drops over what the measured one does. dropped_mass: over that of all
    negatives, by the running means.
    """

    mode: str
    level: int
    dropped_embedding: float
    dropped_center: float
    mass_share: float
    dropped_mass: float = 0.0


@dataclass
class ToleranceControl:
    """Running means over steps, and the decision they lead to. Equal on all ranks, as its input is."""

    tolerance: float
    scale: float = 1.0  # of the loss
    level: int | None = None  # chosen last
    dense: bool = False  # path taken last
    means: dict[str, Tensor] = field(default_factory=dict)

    @functools.cached_property
    def cuts(self) -> Tensor:
        """[L]: the cut of each level."""
        return torch.tensor([level_cut(level, self.scale) for level in range(LEVELS)], dtype=torch.float64)

    def learn(self, sums: DropSums, classes: int, level: int) -> None:
        """Take in a step's sample, measured at ``level``."""
        weight = classes / max(sums.sampled, 1.0)
        share = 1.0
        new = {
            "levels": sums.levels * weight,
            "gathering": torch.tensor([sums.center_force, float(sums.levels[level:, 3].sum())], dtype=torch.float64),
            # coherence, its variance, and one over the number of steps behind the means
            "coherence": torch.tensor([sums.coherence, sums.coherence_variance, 1.0], dtype=torch.float64),
        }
        if self.means and weight > 1.0 and not self._surprised(new["levels"], level):
            share = max(MEMORY, 1.0 / (1.0 / float(self.means["coherence"][2]) + 1.0))
        if share < 1.0:
            for name, value in new.items():
                power = VARIANCES if name == "coherence" else 1.0
                new[name] = (1.0 - share) ** power * self.means[name] + share**power * value
        self.means = new

    def _surprised(self, levels: Tensor, level: int) -> bool:
        before, now = float(self.means["levels"][level:, 2].sum()), float(levels[level:, 2].sum())
        return not before / SURPRISE <= now <= before * SURPRISE

    def decide(self, sums: DropSums, classes: int, measured: int) -> Decision:
        """The largest cut that keeps the error under the target, or the dense path where too many pairs stay."""
        weight = classes / max(sums.sampled, 1.0)
        levels = self.means["levels"]
        below = levels.flip(0).cumsum(0).flip(0)  # [L, 4]: what a cut at each level drops
        above = levels.sum(dim=0) - below
        share = (below[:, 1] / below[measured, 1]).nan_to_num_(0.0, 0.0, 0.0) ** 2
        chi, variance, unseen = self.means["coherence"].tolist()
        if chi < SIGNIFICANT * math.sqrt(variance) and weight > 1.0:
            chi = 0.0
        force, single = self.means["gathering"].tolist()
        rare = (weight - 1.0) * unseen * self.cuts**2 * sums.weights / max(sums.sampled, 1.0)
        embedding = below[:, 2] + max(chi, 0.0) * max(sums.mass, 0.0) * weight * weight * share + rare
        center = below[:, 3] * (max(force / single, 1.0) if single > 0.0 else 1.0)
        center = center + rare * sums.own_center_force / max(sums.own_embedding_force, 1e-300)
        error = torch.maximum(
            embedding / (sums.own_embedding_force + above[:, 2]).clamp_min(1e-300),
            center / (sums.own_center_force + above[:, 3]).clamp_min(1e-300),
        ).sqrt_()
        next_below = below[:, 0] - below[NEXT_LEVELS.clamp_max(LEVELS - 1), 0]
        met = next_below / weight / max(unseen, 1e-9) / ENOUGH_MET
        target = SURE_TARGET - (SURE_TARGET - BLIND_TARGET) / (1.0 + met).sqrt()
        fits = (error <= target * self.tolerance).nonzero()
        level = int(fits[0]) if len(fits) else LEVELS
        scored = float(above[min(level + SLACK_LEVELS, LEVELS - 1), 0])
        limit = DENSE_SHARE * (HYSTERESIS if self.dense else 1.0) * float(levels[:, 0].sum())
        if level >= LEVELS or scored > limit:
            return Decision("dense", min(max(level, 1), LEVELS - 1), 0.0, 0.0, 0.0)
        level = max(level, 1)
        all_mass = float(below[0, 1])
        return Decision(
            "screened",
            level,
            float(embedding[level]),
            float(center[level]),
            math.sqrt(float(share[level])),
            float(below[level, 1]) / all_mass if all_mass > 0.0 else 0.0,
        )

    def state(self) -> dict[str, Any]:
        """To save."""
        return {"level": self.level, "dense": self.dense, "means": self.means}

    def load_state(self, state: dict[str, Any]) -> None:
        """What :meth:`state` saved."""
        self.level, self.dense, self.means = state["level"], state["dense"], state["means"]
