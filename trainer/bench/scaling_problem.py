"""What ``pfc bench scaling`` measures, and what a measurement says.

Shape letters: C classes, D embedding size, B batch of one rank, N global batch, W ranks.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

CLASSES, BATCH, WORLD = "classes", "batch", "world"
AXES = (CLASSES, BATCH, WORLD)


@dataclass(frozen=True)
class ScalingPoint:
    """One size on one axis. batch: per rank. threads: of arithmetic, per rank."""

    axis: str
    num_classes: int
    embedding_dim: int
    batch: int
    world_size: int
    threads: int

    @property
    def global_batch(self) -> int:
        """N."""
        return self.batch * self.world_size

    @property
    def place(self) -> int:
        """On its axis."""
        return {CLASSES: self.num_classes, BATCH: self.global_batch, WORLD: self.world_size}[self.axis]


@dataclass(frozen=True)
class ScalingEffort:
    """How to measure. warmup: steps before timing. spread: standard deviation of the negatives' cosines. tolerance:
    relative error of the batch's gradient that the head may make.
    """

    repetitions: int
    warmup: int
    spread: float
    tolerance: float
    seed: int


@dataclass(frozen=True)
class ScalingRow:
    """One point measured. Medians over repetitions, each of the rank where it was largest.

    wall: of a step, by the wall clock, with its quartiles. compute: the processor's time of a rank, all threads,
    outside collectives. exchange: the processor's time inside them. waited: by the wall clock, inside them: for other
    ranks, for a core, and for the bytes. bare_exchange: the same collectives alone, all ranks ready, by the wall clock.
    Seconds. bytes_moved: what a rank hands to collectives in a step. memory: peak of a rank's resident memory beyond
    what it had before the head was made, centers included, batches and libraries not. active_pairs: negatives of one
    sample that are scored in float32, those whose coefficient reaches ``cut``.
    """

    point: ScalingPoint
    effort: ScalingEffort
    wall: float
    wall_q1: float
    wall_q3: float
    compute: float
    exchange: float
    waited: float
    bare_exchange: float
    bytes_moved: int
    memory: int
    mode: str
    active_pairs: float
    cut: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "ScalingRow":
        """The counterpart of :meth:`to_dict`. Raises ValueError for anything else."""
        row = _made(cls, values)
        return cls(**(row | {"point": ScalingPoint(**_made(ScalingPoint, row["point"]))})
                   | {"effort": ScalingEffort(**_made(ScalingEffort, row["effort"]))})  # fmt: skip


def _made(kind: Any, values: Any) -> dict[str, Any]:
    """``values`` if they are those of a ``kind``, numbers and words where it has some."""
    names = {field.name: field.type for field in fields(kind)}
    if not isinstance(values, dict) or values.keys() != names.keys():
        raise ValueError(f"a {kind.__name__} has {', '.join(names)}")
    wanted: dict[Any, Any] = {int: int, float: int | float, str: str}
    for name, value in values.items():
        if names[name] in wanted and (isinstance(value, bool) or not isinstance(value, wanted[names[name]])):
            raise ValueError(f"{name} of a {kind.__name__} cannot be {value!r}")
    if kind is ScalingPoint and values["axis"] not in AXES:
        raise ValueError(f"axis {values['axis']!r} is none of {', '.join(AXES)}")
    return values


@dataclass(frozen=True)
class LeftOut:
    """A point that was not measured, and why."""

    point: ScalingPoint
    reason: str

    def __str__(self) -> str:
        return f"left out: {describe(self.point)}: {self.reason}"


def describe(point: ScalingPoint) -> str:
    """For people."""
    ranks = f"{point.world_size} {'rank' if point.world_size == 1 else 'ranks'}"
    return f"{point.num_classes:,} classes, D={point.embedding_dim}, B={point.batch} a rank, {ranks}"
