"""What one step found out on this rank, and the statistics of it over all.

Shape letters: N global batch, D embedding size.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from partial_fc.full_gradient import FullGradient
from partial_fc.row_gradient import RowGradient
from partial_fc.stats import HeadStats
from partial_fc.tiled_gradient import TiledGradient

if TYPE_CHECKING:
    from partial_fc.head import PartialFC


@dataclass(frozen=True)
class Estimate:
    """From a step's sample of centers, over all ranks: what the screened path did not score.

    dropped_embedding, dropped_center: squared norms, times N^2, of what is missing in the two gradients.
    dropped_loss: mean over the batch. angle, angle_squares: of negatives, mean of pi/2 - theta and of its square.
    dropped_mass: sum of the negatives' coefficients that are left out, over that of all.
    """

    dropped_embedding: float
    dropped_center: float
    dropped_loss: float
    angle: float
    angle_squares: float
    dropped_mass: float = 0.0


@dataclass(frozen=True)
class ScoredStep:
    """Sums over this rank's centers: loss parts (mean over the batch), dL/d(unit embeddings) [N, D], the centers' part.

    moments: [6] float64, see :class:`partial_fc.tiled.TiledResult`. center_force: N^2 times the squared norm of the
    centers' gradient by its single pairs. cut: smallest coefficient N * dL/dc that counts as active. estimate: of a
    screened step.
    """

    intra: Tensor
    inter: Tensor
    unit_gradient: Tensor
    center_gradient: RowGradient | FullGradient | TiledGradient | None
    moments: Tensor
    center_force: Tensor
    cut: float
    mode: Literal["dense", "screened"] = "dense"
    estimate: Estimate | None = None


def stats_of(totals: list[float], step: ScoredStep, head: "PartialFC", *, batch: int) -> HeadStats:
    """From the sums over ranks of intra, inter, moments, the embedding gradient's squared norm and center_force."""
    intra, inter, own_sum, positives, negative_sum, negative_squares, negatives, active, squared, center_force = totals
    mean = negative_sum / negatives if negatives else math.nan  # of pi/2 - theta
    square = negative_squares / negatives if negatives else math.nan
    error = 0.0
    if step.estimate is not None:
        mean, square = step.estimate.angle, step.estimate.angle_squares
        inter += step.estimate.dropped_loss
        error = max(
            _quotient(step.estimate.dropped_embedding, squared * batch * batch),
            _quotient(step.estimate.dropped_center, center_force),
        )
    variance = square - mean * mean
    return HeadStats(
        mode=step.mode,
        active_pairs=int(active),
        error=error,
        cut=step.cut,
        loss=intra + inter,
        loss_intra=intra,
        loss_inter=inter,
        theta_positive=math.pi / 2 - own_sum / positives if positives else math.nan,
        theta_negative=math.pi / 2 - mean,
        theta_negative_std=math.nan if math.isnan(mean) else math.sqrt(max(variance, 0.0)),
        bytes_moved=head.collectives.bytes_moved,
        samples=batch,
        gradient_norm=math.sqrt(squared) if squared >= 0.0 else math.nan,
        dropped_mass=0.0 if step.estimate is None else step.estimate.dropped_mass,
    )


def _quotient(dropped: float, whole: float) -> float:
    if dropped == 0.0:
        return 0.0
    return math.sqrt(dropped / whole) if whole > 0.0 else math.inf
