"""What ``pfc bench step`` measures, and what a measurement says."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.bench.seconds import Seconds
from trainer.bench.summary import quartiles

DECODE = "decode"  # the loader's next batch while nothing else works
FORWARD = "forward"  # the bare backbone
GATHER = "gather"  # embeddings and identities of all ranks, as bare all-gathers
HEAD = "head"  # forward and backward, on a batch gathered beforehand
BACKWARD = "backward"  # the bare backbone
EXCHANGE = "exchange"  # of the backbone's gradient, as bare all-reduces
OPTIMIZER = "optimizer"  # torch's for the backbone, CenterSGD for the centers
METRICS = "metrics"  # all that is told of a step
PARTS = (DECODE, FORWARD, GATHER, HEAD, BACKWARD, EXCHANGE, OPTIMIZER, METRICS)

SUM, STEP, SUM_WITH_DECODE, LOADED_STEP, TOLD = "sum", "step", "sum_with_decode", "loaded_step", "told"
STEP_OVER_SUM, LOADED_OVER_SUM = "step_over_sum", "loaded_over_sum"
METRICS_SHARE, TOLD_SHARE = "metrics_share", "told_share"
RATIOS = (STEP_OVER_SUM, LOADED_OVER_SUM, METRICS_SHARE, TOLD_SHARE)

LARGEST_STEP_OVER_PARTS = 1.05
LARGEST_METRICS_SHARE = 0.01


@dataclass(frozen=True)
class StepEffort:
    """One size and how to measure it.

    batch: per rank. steps: of each kind in a round. warmup: steps before the first round. threads: of arithmetic per
    rank; decode_threads: of the loader.
    """

    backbone: str
    image_size: int
    num_classes: int
    embedding_dim: int
    batch: int
    repetitions: int
    steps: int
    warmup: int
    threads: int
    decode_threads: int
    seed: int


@dataclass(frozen=True)
class Round:
    """Means over the steps of one round, each of the slowest rank.

    parts: each alone, by name. step: of the loop, batches in memory. loaded_step: of the loop, batches from the loader.
    """

    parts: dict[str, Seconds]
    step: Seconds
    loaded_step: Seconds

    @property
    def sum_of_parts(self) -> Seconds:
        """Of a step whose batch lies in memory."""
        return sum((seconds for part, seconds in self.parts.items() if part != DECODE), Seconds())

    @property
    def sum_with_decode(self) -> Seconds:
        """Of a step that decodes its batch."""
        return sum(self.parts.values(), Seconds())


@dataclass(frozen=True)
class Quartiles:
    """Over the rounds."""

    q1: float
    median: float
    q3: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """At least one value."""
        return cls(*quartiles(values))


@dataclass(frozen=True)
class Figure:
    """Median and quartiles over the rounds, by both clocks: seconds, or ratios of them."""

    wall: Quartiles
    cpu: Quartiles

    @classmethod
    def of(cls, rounds: Sequence[Seconds]) -> "Figure":
        """At least one."""
        return cls(Quartiles.of([each.wall for each in rounds]), Quartiles.of([each.cpu for each in rounds]))


@dataclass(frozen=True)
class StepResults:
    """One size, measured. Figures are by name: the parts, and

    sum: of the parts but decoding. step: of the loop, batches in memory. sum_with_decode: of all parts. loaded_step: of
    the loop, batches from the loader, which decodes while the step computes. told: what the loop's account of a step
    takes inside of it, mean of all steps, because a line of the log comes with some of them only.
    Ratios, taken round by round: step_over_sum; loaded_over_sum, to the sum with decoding; metrics_share and
    told_share, of all that is told of a step alone and in the loop, of the step on batches in memory.
    head_modes: the head's way in the loop's steps.
    """

    effort: StepEffort
    world_size: int
    head_modes: str
    figures: dict[str, Figure]


def step_results(
    effort: StepEffort, rounds: Sequence[Round], told: Seconds, *, world_size: int, head_modes: str
) -> StepResults:
    """From all rounds of one size."""
    figures = {part: [each.parts[part] for each in rounds] for part in PARTS} | {
        SUM: [each.sum_of_parts for each in rounds],
        STEP: [each.step for each in rounds],
        SUM_WITH_DECODE: [each.sum_with_decode for each in rounds],
        LOADED_STEP: [each.loaded_step for each in rounds],
        TOLD: [told],
        STEP_OVER_SUM: [_ratio(each.step, each.sum_of_parts) for each in rounds],
        LOADED_OVER_SUM: [_ratio(each.loaded_step, each.sum_with_decode) for each in rounds],
        METRICS_SHARE: [_ratio(each.parts[METRICS], each.step) for each in rounds],
        TOLD_SHARE: [_ratio(told, each.step) for each in rounds],
    }
    return StepResults(effort, world_size, head_modes, {name: Figure.of(found) for name, found in figures.items()})


def _ratio(one: Seconds, other: Seconds) -> Seconds:
    return Seconds(one.wall / other.wall, one.cpu / other.cpu)
