"""Ranks that are killed at every moment of saving a checkpoint, and what the next start finds.

python killed_savers.py FOLDER    plays all cases and writes FOLDER/outcomes.json

A moment is the n-th operation on files that the checkpoint's thread asks the kernel for (open, mkdir, rename, unlink,
...; Python's audit events), or the n-th byte of the file being written, or the middle of copying. The ranks are forked
from a process that has imported torch once: a case takes tenths of a second.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # loaded once, before the ranks are forked
from training_on_ranks import BATCH, continue_run, new_trained, train_steps

from trainer.agreement import any_rank_each
from trainer.checkpoint import (
    CheckpointSaver,
    Position,
    Retention,
    Score,
    Trained,
    complete_checkpoints,
    load_newest,
    read_description,
)
from trainer.checkpoint.folders import FOLDER, step_of
from trainer.checkpoint.snapshot import HostBuffers
from trainer.checkpoint.storage import RawReader
from trainer.config import Config, config_from
from trainer.run_checkpoints import RunCheckpoints
from trainer.world import World

OLD, NEW, END = 2, 3, 5  # steps: of the checkpoint that is there, of the one being written, of the comparison
OPERATIONS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.truncate")
DEADLINE_SECONDS = 60.0
LOSS, PAIRS = "sface", "pairs"


@dataclass(frozen=True)
class Case:
    """victim: the rank that dies. moment: "operation", "byte" or "copy"; number: which one."""

    ranks: int
    asynchronous: bool
    victim: int
    moment: str
    number: int


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def die_before_operation(number: int) -> None:
    left = number

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        if event in OPERATIONS and threading.current_thread().name == "checkpoint":
            if left == 0:
                die()
            left -= 1

    sys.addaudithook(count)


def die_at_byte(number: int) -> None:
    """The kernel ends a process whose file would grow beyond the limit, in the middle of its write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def die_while_copying(number: int) -> None:
    def half(self: HostBuffers, parts: dict[str, Any]) -> Any:
        copy(self, dict(list(parts.items())[: len(parts) // 2]))
        die()

    copy = HostBuffers.copy
    HostBuffers.copy = half  # type: ignore[method-assign]


MOMENTS: dict[str, Callable[[int], None]] = {
    "operation": die_before_operation,
    "byte": die_at_byte,
    "copy": die_while_copying,
}


def config_of(folder: Path) -> Config:
    return config_from(
        {
            "run": {"output": str(folder)},
            "data": {"records": "train.rec"},
            "train": {"steps": 99},
            "evaluation": {"pairs": [f"{PAIRS}.bin"]},
        },
        "test",
    )


def score(step: int) -> Score:
    return Score(PAIRS, 0.5 + step / 100)


def save_and_go_on(case: Case, rank: int, folder: Path) -> None:
    """From the old checkpoint on: a step, a checkpoint beside the next steps; one rank dies."""
    world = World(rank, case.ranks, rank, torch.device("cpu"))
    trained = new_trained(LOSS)
    load_newest(folder, trained, world=world, seed=0)
    saver = CheckpointSaver(
        folder,
        config=config_of(folder),
        world=world,
        retention=Retention(2, 1, PAIRS),
        asynchronous=case.asynchronous,
    )
    train_steps(trained, world, range(OLD, NEW))
    if rank == case.victim:
        MOMENTS[case.moment](case.number)
    try:
        saver.save(trained, Position(NEW, NEW * BATCH, {"epoch": 0, "samples": 0}), score=score(NEW))
        for step in range(NEW, END):
            train_steps(trained, world, range(step, step + 1))
            busy, failed = any_rank_each(world, saver.flags)
            saver.advance(busy=busy, failed=failed)
        saver.wait()
    except BaseException:
        saver.abandon()  # as the training loop does when another rank is gone
        raise


def what_is_left(folder: Path) -> dict[str, Any]:
    """Before the next start: the steps of the checkpoints that count. Raises for one that is not whole."""
    whole = []
    for path in complete_checkpoints(folder):
        RawReader(path, read_description(path).tensors).verify()
        whole.append(step_of(path))
    return {"whole": whole}


def next_start(folder: Path, truth: torch.Tensor) -> dict[str, Any]:
    """A world of one takes the run over, as the trainer does, up to the step of the comparison."""
    world = World(0, 1, 0, torch.device("cpu"))
    trained = new_trained(LOSS)
    position, damages = load_newest(folder, trained, world=world, seed=0)
    assert position is not None
    RunCheckpoints(
        config=config_of(folder),
        world=world,
        run_folder=folder,
        trained=trained,
        reporting=None,  # type: ignore[arg-type]  # nothing is told at a start
        pair_names=[PAIRS],
        position=position,
    )
    names = sorted(path.name for path in (folder / FOLDER).iterdir())
    inside = {path.name for path in (folder / FOLDER).glob("*/*")}
    train_steps(trained, world, range(position.step, END))
    distance = float((flat(trained) - truth).norm() / truth.norm())
    return {"begin": position.step, "damages": damages, "names": names, "inside": sorted(inside), "distance": distance}


def flat(trained: Trained) -> torch.Tensor:
    weights = [trained.head.centers, *trained.backbone.parameters()]
    return torch.cat([each.detach().flatten() for each in weights])


def fork_ranks(ranks: int, action: Callable[[int], None], folder: Path) -> list[int]:
    """``action(rank)`` in a process each; exit codes, a signal's number negative."""
    processes = []
    for rank in range(ranks):
        process = os.fork()
        if process == 0:
            code = 0
            try:
                sys.stderr = (folder / f"rank{rank}.err").open("w")
                if ranks > 1:
                    dist.init_process_group(
                        "gloo",
                        init_method=f"file://{folder}/store",
                        rank=rank,
                        world_size=ranks,
                        timeout=timedelta(seconds=DEADLINE_SECONDS / 2),
                    )
                action(rank)
            except BaseException:
                traceback.print_exc()
                code = 1
            finally:
                sys.stderr.flush()
                os._exit(code)
        processes.append(process)
    end = time.monotonic() + DEADLINE_SECONDS
    codes: dict[int, int] = {}
    while len(codes) < ranks:
        for process in set(processes) - codes.keys():
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                codes[process] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                os.kill(process, signal.SIGKILL)
        time.sleep(0.002)
    return [codes[process] for process in processes]


def play_case(case: Case, folder: Path, base: Path, truth: torch.Tensor) -> dict[str, Any]:
    folder.mkdir()
    run = folder / "run"
    shutil.copytree(base, run)
    codes = fork_ranks(case.ranks, lambda rank: save_and_go_on(case, rank, run), folder)
    found = asdict(case) | {"codes": codes} | what_is_left(run) | next_start(run, truth)
    shutil.rmtree(folder)
    return found


def play(folder: Path) -> None:
    draw = random.Random(11)
    outcomes = []
    for ranks in (1, 2):
        base = folder / f"base{ranks}"
        for _ in range(OLD):
            fork_ranks(ranks, lambda rank, r=ranks, b=base: continue_run(rank, r, b, LOSS, 1) and None, folder)
            (folder / "store").unlink(missing_ok=True)
        trained = new_trained(LOSS)
        train_steps(trained, World(0, 1, 0, torch.device("cpu")), range(END))
        truth = flat(trained)
        for asynchronous in (True, False) if ranks == 1 else (True,):
            for victim in range(ranks):
                # To the first operation that never comes: the rank survives.
                number, survived = 0, False
                while not survived:
                    case = Case(ranks, asynchronous, victim, "operation", number)
                    outcomes.append(play_case(case, folder / "case", base, truth))
                    survived = outcomes[-1]["codes"] == [0] * ranks
                    number += 1 if ranks == 1 else draw.randint(1, 3)
                size = (base / FOLDER / f"step_{OLD:08d}" / f"rank_{victim:04d}.bin").stat().st_size
                for place in (1, draw.randrange(size), size - 1):
                    case = Case(ranks, asynchronous, victim, "byte", place)
                    outcomes.append(play_case(case, folder / "case", base, truth))
                if asynchronous:
                    case = Case(ranks, asynchronous, victim, "copy", 0)
                    outcomes.append(play_case(case, folder / "case", base, truth))
    (folder / "outcomes.json").write_text(json.dumps(outcomes, indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    play(Path(sys.argv[1]))
