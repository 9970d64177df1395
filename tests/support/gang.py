"""Run one function on W gloo ranks, each a process of its own, under a hard deadline.

Ranks meet through a file in ``folder``, so no port is chosen that another process could take.
"""

import importlib
import multiprocessing
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PRELOADED = ["torch", "torch._dynamo", "torch.distributed.nn.functional", "trainer.training"]


def run_gang(
    world_size: int, function: Callable[..., Any], *args: Any, folder: Path, deadline_seconds: float = 120.0
) -> list[Any]:
    """``[function(rank, world_size, *args) for each rank]``; results travel by torch.save.

    A world of one gets no process group, as in real use. Raises AssertionError with the ranks' tracebacks, or
    when the deadline passes; no process survives either way.
    """
    # Forked from a server that has imported what takes seconds, and that has no threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    folder.mkdir(parents=True, exist_ok=True)
    ranks: list[BaseProcess] = [
        context.Process(target=_rank_main, args=(rank, world_size, folder, deadline_seconds, function, args))
        for rank in range(world_size)
    ]
    end = time.monotonic() + deadline_seconds
    try:
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(max(0.0, end - time.monotonic()))
        hung = [rank for rank, process in enumerate(ranks) if process.is_alive()]
    finally:
        for process in ranks:
            if process.pid is not None:
                process.kill()
                process.join()
    failures = [path.read_text() for path in sorted(folder.glob("rank*.error"))]
    assert not failures, "\n".join(failures)
    assert not hung, f"ranks {hung} of {world_size} were still running after {deadline_seconds} s"
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world_size)]


def leave_group() -> None:
    """Destroy the process group where its threads hold nothing any more: see trainer.world.joined_world."""
    last = torch.zeros(1)
    for _ in range(4):
        dist.all_reduce(last)
    time.sleep(0.1)
    dist.destroy_process_group()


def _rank_main(
    rank: int, world_size: int, folder: Path, deadline_seconds: float, function: Callable[..., Any], args: Any
) -> None:
    torch.set_num_threads(1)
    try:
        if world_size > 1:
            importlib.import_module("torch.distributed.nn.functional")  # see trainer.world.joined_world
            dist.init_process_group(
                "gloo",
                init_method=f"file://{folder}/store",
                rank=rank,
                world_size=world_size,
                timeout=timedelta(seconds=deadline_seconds),
            )
        torch.save(function(rank, world_size, *args), folder / f"rank{rank}.pt")
        if world_size > 1:
            leave_group()
    except BaseException:
        (folder / f"rank{rank}.error").write_text(f"rank {rank} of {world_size}:\n{traceback.format_exc()}")
        raise
