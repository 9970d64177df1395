"""Bootstrap replicates shared out among the ranks."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from trainer.agreement import on_first_rank
from trainer.evaluation.bootstrap import Interval, percentile_intervals
from trainer.world import World


@dataclass(frozen=True, kw_only=True)
class BootstrapSettings:
    """replicates: 0 for no intervals.  confidence: share of the replicates inside.  seed: of the drawing."""

    replicates: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        return {"over": "identities"} | asdict(self)


def intervals_on_ranks(
    settings: BootstrapSettings, replicate: Callable[[int], dict[str, float]], world: World
) -> dict[str, Interval]:
    """Intervals of the rates of ``replicate(number)``, on rank 0; empty elsewhere. A collective.

    A replicate depends on its number alone, so the intervals are the same at any number of ranks.
    """
    mine = [(number, replicate(number)) for number in range(world.rank, settings.replicates, world.world_size)]
    gathered = on_first_rank(world, mine)
    if gathered is None:
        return {}
    ordered = sorted((each for part in gathered for each in part), key=lambda each: each[0])
    return percentile_intervals([rates for _, rates in ordered], settings.confidence)
