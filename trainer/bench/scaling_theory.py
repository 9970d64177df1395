"""How cost should grow along each axis, and whether it does.

Shape letters: C classes, D embedding size, B batch of one rank, N global batch, W ranks.

A screened step reads C/W rows and makes C/W * N int8 products, so time and memory of a rank go with C once that
outweighs what every step costs (a sample of centers, small calls), with N at most, and, the global batch kept, with
1/W. A rank hands over B (4D + 8) bytes in the all-gather and takes 4BD from the reduce-scatter, whatever C is; B = N/W.
About 1 KiB of statistics comes on top.

The pairs that a step must score grow faster than C. The error of dropping all pairs below a cosine t, in the embedding
gradient of one sample, is sqrt(C E[f(c)^2; c < t]). The coefficient f grows as exp(k c / sin) around t, and the density
of cosines between random directions of m dimensions falls as exp(-h c), h = (m - 3) t / (1 - t^2). So the error stays
where C exp((2k / sin - h) t) does: t falls as C grows, and C exp(-h t) pairs lie above it. They go as
C ** (1 + h / (2k / sin - h)), about C ** 1.9 at a spread of 0.06. That is the price of one tolerance at any size, and
in the end outweighs what is linear.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from partial_fc import SFace
from trainer.bench.geometry import effective_dimension
from trainer.bench.scaling_fit import PowerFit, fit_power
from trainer.bench.scaling_problem import BATCH, CLASSES, WORLD, ScalingRow

DOMINATE = 300_000  # classes from which on they outweigh a step's fixed cost
SLACK = 0.05  # of an exponent: what medians of a few steps cannot tell apart


@dataclass(frozen=True)
class Law:
    """On one axis, one figure of a row should go as x ** exponent; at_most: or grow more slowly."""

    axis: str
    figure: str
    exponent: float
    at_most: bool = False


LAWS = (
    Law(CLASSES, "wall", 1.0),
    Law(CLASSES, "compute", 1.0),
    Law(CLASSES, "memory", 1.0),
    Law(BATCH, "wall", 1.0, at_most=True),
    Law(BATCH, "compute", 1.0, at_most=True),
    Law(BATCH, "memory", 1.0, at_most=True),
    Law(WORLD, "compute", -1.0),
    Law(WORLD, "memory", -1.0),
    Law(WORLD, "bytes_moved", -1.0),
)


@dataclass(frozen=True)
class Judged:
    """A law and what was found; fit: None where there are too few points. first, last: the range of the fit."""

    law: Law
    fit: PowerFit | None
    first: int
    last: int

    @property
    def verdict(self) -> str:
        """ "worse" beyond two standard errors and SLACK, in the direction that costs; "better" likewise."""
        if self.fit is None or self.fit.points < 3:
            return "too few points"
        margin = SLACK + 2 * self.fit.error
        difference = self.fit.slope - self.law.exponent
        if difference > margin:
            return "worse"
        return "better" if difference < -margin and not self.law.at_most else "as theory"


def collective_bytes(batch: int, embedding_dim: int) -> int:
    """Of one rank and step, by theory: B (4D + 8) + 4BD."""
    return batch * (4 * embedding_dim + 8) + 4 * batch * embedding_dim


def in_range(law: Law, rows: Sequence[ScalingRow]) -> list[ScalingRow]:
    """Rows that the law speaks of, in order: of classes those that dominate, unless fewer than three are."""
    mine = sorted((row for row in rows if row.point.axis == law.axis), key=lambda row: row.point.place)
    if law.axis == WORLD and law.figure == "bytes_moved":
        return [row for row in mine if row.point.world_size > 1]
    if law.axis != CLASSES:
        return mine
    large = [row for row in mine if row.point.num_classes >= DOMINATE]
    return large if len(large) > 2 else mine


def pairs_exponent(row: ScalingRow) -> float:
    """Of the pairs of one sample against the number of classes, around the cut of this row; infinite where the error
    comes from the rarest pairs alone.
    """
    loss = SFace()
    share = row.cut / loss.scale
    theta = loss.b - math.log(share / (1 - share)) / loss.slope
    cosine = math.cos(theta)
    dimension = effective_dimension(row.effort.spread, row.point.embedding_dim)
    falls, grows = (dimension - 3) * cosine / (1 - cosine**2), 2 * loss.slope / math.sin(theta)
    return 1 + falls / (grows - falls) if grows > falls else math.inf


def _pairs_law(rows: Sequence[ScalingRow]) -> list[Law]:
    screened = [row for row in rows if row.point.axis == CLASSES and row.mode == "screened" and row.active_pairs > 0]
    large = [row for row in screened if row.point.num_classes >= DOMINATE]
    if len(large) < 2 or not all(0 < row.cut < SFace().scale for row in large):
        return []
    return [Law(CLASSES, "active_pairs", statistics.mean(pairs_exponent(row) for row in large))]


def judge(rows: Sequence[ScalingRow]) -> list[Judged]:
    """Every law whose axis was measured."""
    judged = []
    for law in (*LAWS, *_pairs_law(rows)):
        mine = in_range(law, rows)
        if mine:
            xs, ys = [row.point.place for row in mine], [float(getattr(row, law.figure)) for row in mine]
            judged.append(Judged(law, fit_power(xs, ys), xs[0], xs[-1]))
    return judged
