"""How cost should grow along each axis, and whether it does.

Shape letters: C classes, D embedding size, B batch of one rank, N global batch, W ranks.

A screened step reads C/W rows and makes C/W * N int8 products, so time and memory of a rank go with C once that
outweighs what every step costs (a sample of centers, small calls), with N at most, and, the global batch kept, with
1/W. A rank hands over B (4D + 8) bytes in the all-gather and takes 4BD from the reduce-scatter, whatever C is; B = N/W.
About 1 KiB of statistics comes on top.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


def judge(rows: Sequence[ScalingRow]) -> list[Judged]:
    """Every law whose axis was measured."""
    judged = []
    for law in LAWS:
        mine = in_range(law, rows)
        if mine:
            xs, ys = [row.point.place for row in mine], [float(getattr(row, law.figure)) for row in mine]
            judged.append(Judged(law, fit_power(xs, ys), xs[0], xs[-1]))
    return judged
