"""Times what all ranks of a machine do at once."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch.distributed as dist

from trainer.agreement import largest
from trainer.world import World


@dataclass(frozen=True)
class Clock:
    """Times what all ranks of ``world`` do at once. now: seconds."""

    world: World
    now: Callable[[], float]

    def seconds(self, action: Callable[[], object], times: int = 5) -> float:
        """Median of ``times`` calls after one, each of the slowest rank."""
        action()
        found = []
        for _ in range(times):
            self.meet()
            began = self.now()
            action()
            found.append(largest(self.world, self.now() - began))
        return statistics.median(found)

    def meet(self) -> None:
        """All ranks begin together."""
        if self.world.world_size > 1:
            dist.barrier()
