"""Ranks act together: one rank's decision or failure becomes everyone's, so that none is left waiting."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist

from data_pipeline import DataError
from trainer.errors import ConfigError
from trainer.errors import PeerFailedError as PeerFailedError
from trainer.world import World

Result = TypeVar("Result")


def first_rank_decides(world: World, action: Callable[[], Result]) -> Result:
    """Run ``action`` on rank 0 and return its result on every rank.

    A ConfigError or DataError of rank 0 is raised on all ranks with the same message.
    """
    if world.world_size == 1:
        return action()
    message: list[tuple[str, object]] = [("", None)]
    if world.is_first:
        try:
            message = [("result", action())]
        except (ConfigError, DataError) as error:
            message = [("bad input", str(error))]
        except Exception as error:
            dist.broadcast_object_list([("failure", f"{type(error).__name__}: {error}")], 0)
            raise
    dist.broadcast_object_list(message, 0)
    kind, content = message[0]
    if kind == "bad input":
        raise ConfigError(str(content))
    if kind == "failure":
        raise PeerFailedError(f"rank 0 failed: {content}")
    return content  # type: ignore[return-value]  # rank 0's own result


def any_rank(world: World, flag: bool) -> bool:
    """Whether the flag is raised on any rank: a one-number all-reduce on the CPU."""
    return any_rank_each(world, [flag])[0]


def any_rank_each(world: World, flags: Sequence[bool]) -> list[bool]:
    """Of each flag whether it is raised on any rank: one all-reduce of a few numbers on the CPU."""
    if world.world_size == 1:
        return list(flags)
    values = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return [bool(value) for value in values.tolist()]


def of_all_ranks(world: World, value: Result) -> list[Result]:
    """What each rank has, in rank order, on every rank."""
    if world.world_size == 1:
        return [value]
    values: list[Result] = [value] * world.world_size
    dist.all_gather_object(values, value)
    return values


def on_first_rank(world: World, value: Result) -> list[Result] | None:
    """What each rank has, in rank order, on rank 0; None elsewhere."""
    if world.world_size == 1:
        return [value]
    values: list[Result] | None = [value] * world.world_size if world.is_first else None
    dist.gather_object(value, values, dst=0)
    return values


def largest(world: World, value: float) -> float:
    """The largest of all ranks' values: a one-number all-reduce on the CPU. NaN is not for comparison."""
    if world.world_size == 1:
        return value
    number = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(number, dist.ReduceOp.MAX)
    return float(number)


def together(world: World, action: Callable[[], None], what: str) -> None:
    """Run ``action`` on every rank; if it fails on one, it fails on all.

    Raises the rank's own error there and PeerFailedError elsewhere.
    """
    failure: Exception | None = None
    try:
        action()
    except Exception as error:
        failure = error
    failed = any_rank(world, failure is not None)
    if failure is not None:
        raise failure
    if failed:
        raise PeerFailedError(f"{what}: another rank failed; see its log")
