"""What every rank does for itself, with one outcome: a rank's bad input ends all ranks with the same line."""

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from data_pipeline import DataError
from trainer.agreement import together
from trainer.errors import ConfigError
from trainer.world import World

Result = TypeVar("Result")


def each_rank(world: World, action: Callable[[], Result], what: str) -> Result:
    """This rank's result of ``action``, which communicates with nobody.

    Raises ConfigError with the first rank's message where some rank raised ConfigError or DataError; any other error
    on the rank itself and PeerFailedError elsewhere.
    """
    results: list[Result] = []
    problems: list[str] = []

    def attempt() -> None:
        try:
            results.append(action())
        except (ConfigError, DataError) as error:
            problems.append(str(error))

    together(world, attempt, what)
    if world.world_size > 1:
        everyones: list[list[str]] = [[]] * world.world_size
        dist.all_gather_object(everyones, problems)
        problems = [problem for of_rank in everyones for problem in of_rank]
    if problems:
        raise ConfigError(problems[0])
    return results[0]
