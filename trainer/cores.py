"""How many threads a rank computes with where its launcher has not said: its part of the cores that it may use."""

import os
import platform
from collections.abc import Sequence

import torch

from trainer.agreement import of_all_ranks
from trainer.world import World

Cores = tuple[str, tuple[int, ...]]
"""A machine's name, and the numbers of its cores that a process may use."""


def share_cores(world: World, *, told: bool) -> None:
    """Give each of the ranks that share cores an equal part of them; all ranks call it. told: leave it as it is.

    Torch takes all cores for every process. Threads of several ranks then wait for each other, some of them by
    spinning: without this, a step of a bfloat16 backbone takes half as long again or more (two ranks on two cores).
    torchrun says OMP_NUM_THREADS=1; other launchers say nothing, or bind each rank to cores of its own.
    """
    mine = (platform.node(), tuple(sorted(os.sched_getaffinity(0))))
    everyone = of_all_ranks(world, mine)
    if not told and everyone.count(mine) > 1:
        torch.set_num_threads(threads_of_a_rank(mine, everyone))


def threads_of_a_rank(mine: Cores, everyone: Sequence[Cores]) -> int:
    """Cores that this rank may use, less what belongs to the others that may use the same ones; at least 1."""
    return max(1, len(mine[1]) // everyone.count(mine))
