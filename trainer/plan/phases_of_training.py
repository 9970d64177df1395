"""How long the phases of real short trainings take, over what operations and shapes let expect.

In a training the backbone finds the caches full of others' data, and the optimizer that of the whole network: passes
and head steps alone, one after the other, are no measure of either.
"""

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from trainer.plan.backbone_cost import backbone_cost
from trainer.plan.problem import Problem
from trainer.plan.rates import Rates, family
from trainer.plan.short_training import Watched
from trainer.plan.timing import BACKWARD, FORWARD, timing_of, update_bytes


@dataclass(frozen=True)
class Trained:
    """A short training and what it was of."""

    problem: Problem
    watched: Watched

    def seconds(self, phase: str) -> float:
        """Of a step, the median of all lines but the first."""
        return float(statistics.median(line["phase_seconds"].get(phase, 0.0) for line in self.watched.lines[1:]))


def with_phases(rates: Rates, trainings: Collection[Trained]) -> Rates:
    """``rates`` with forward and backward by family and precision, the update of a byte of weights, the head's fixed
    seconds, and those between steps. trainings: without DeepSpeed.
    """
    update, fixed = _update([(update_bytes(each.problem), each.seconds("optimizer")) for each in trainings])
    rates = replace(
        rates,
        update=update,
        between_seconds=statistics.median(each.seconds("other") for each in trainings),
        forward=dict(rates.forward),
        backward=dict(rates.backward),
        forward16=dict(rates.forward16),
        backward16=dict(rates.backward16),
    )
    for each in trainings:
        kind, low = family(each.problem.config.backbone.name), each.problem.config.backbone.precision != "float32"
        parts = timing_of(each.problem, rates, mode="screened").parts
        forward, backward = (rates.forward16, rates.backward16) if low else (rates.forward, rates.backward)
        forward[kind] *= each.seconds("forward") / parts["forward"]
        # What the exchange takes beyond its bytes belongs to the pass, during which it happens.
        exchange = min(parts["gradient all-reduce"], 0.5 * each.seconds("backward"))
        backward[kind] *= (each.seconds("backward") - exchange) / parts["backward"]
    _like_others(rates.forward, rates.forward16, trainings)
    _like_others(rates.backward, rates.backward16, trainings)
    heads = []
    for each in trainings:
        parts = timing_of(each.problem, rates, mode="screened").parts
        pieces = each.problem.config.train.micro_batches
        heads.append((each.seconds("head") - sum(parts[name] for name in ("all-gather", "head"))) / pieces)
    return replace(rates, head_seconds=max(0.0, rates.head_seconds + statistics.median(heads) + fixed))


def _like_others(full: dict[str, float], low: dict[str, float], trainings: Collection[Trained]) -> None:
    """Families that were not trained in 16 bits, whose factors were 1: as IResNet's, relative to its float32 ones."""
    configs = [each.problem.config.backbone for each in trainings]
    trained = {family(config.name) for config in configs if config.precision != "float32"}
    for kind in low.keys() - trained:
        low[kind] = full[kind] * low["iresnet"] / full["iresnet"]


def _update(points: Collection[tuple[float, float]]) -> tuple[float, float]:
    """(seconds a byte, seconds whatever the size): the line of least squares through (bytes, seconds)."""
    slope, start = statistics.linear_regression(*zip(*points, strict=True))
    if slope <= 0.0 or start < 0.0:
        return max(1e-15, statistics.median(seconds / nbytes for nbytes, seconds in points)), 0.0
    return slope, start


def with_zero_phases(rates: Rates, plain: Trained, split: Mapping[str, Trained]) -> Rates:
    """``rates`` with the seconds that DeepSpeed takes beyond DDP, of a byte of weights, by stage and phase."""
    cost = backbone_cost(plain.problem.config.backbone, plain.problem.config.data.image_size)
    weights = 4.0 * cost.parameters
    found: dict[str, dict[str, float]] = {"forward": {}, "backward": {}, "optimizer": {}}
    for stage, each in split.items():
        known = (timing_of(each.problem, rates).parts, timing_of(plain.problem, rates).parts)
        for phase, names in (("forward", FORWARD), ("backward", BACKWARD), ("optimizer", ("optimizer",))):
            expected = plain.seconds(phase) + sum(known[0].get(name, 0.0) - known[1].get(name, 0.0) for name in names)
            found[phase][stage] = (each.seconds(phase) - expected) / weights
    return replace(
        rates, zero_forward=found["forward"], zero_backward=found["backward"], zero_optimizer=found["optimizer"]
    )
