"""What ranks have saved of their own, as far as a rank that reads needs it."""

from typing import Any

import torch

from partial_fc import ClassShard
from partial_fc.center_loading import SMALL_OF_A_ROW
from trainer.checkpoint.description import Description
from trainer.world import World

OF_A_ROW = ("classes", *SMALL_OF_A_ROW)


def needed_states(description: Description, shard: ClassShard, world: World) -> list[dict[str, Any]]:
    """Of the ranks that saved: this one's where they are as many, else the motion of those that hold this rank's
    classes.
    """
    if description.world_size == world.world_size:
        return [description.ranks[world.rank]]
    states = description.ranks
    holders = [each for each in states if each["start"] < shard.stop and each["stop"] > shard.start]
    return [{"motion": each["motion"]} for each in holders or states[:1]]


def without_momentum(states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The states, but for what is as large as the centers: that goes to its place without being held twice."""
    return [
        state | {"motion": {name: value for name, value in state["motion"].items() if name != "momentum"}}
        if state["motion"] is not None
        else state
        for state in states
    ]


def one_motion(motions: list[Any]) -> dict[str, Any] | None:
    """That of all holders, one after another, as :class:`partial_fc.center_loading.CenterLoading` takes it.

    Raises ValueError where they do not belong together.
    """
    first: dict[str, Any] | None = motions[0]
    if first is None:
        return None
    if len({each["now"] for each in motions}) > 1:
        raise ValueError("its momentum comes from different steps")
    if any(len({len(each[name]) for name in OF_A_ROW}) > 1 for each in motions):
        raise ValueError("its momentum is not of as many rows as it says")
    return first | {name: torch.cat([each[name] for each in motions]) for name in OF_A_ROW}
