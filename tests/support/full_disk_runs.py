"""Training runs on a disk that is full for a while, or at the end.

unshare --mount ... python full_disk_runs.py FOLDER    plays all cases; of each, FOLDER/CASE/ holds what is left

The ranks are forked from a process that has imported all once: each run takes seconds.
"""

import importlib
import json
import os
import shutil
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.nn.functional  # loaded once, before the ranks are forked: joining needs it
from ports import free_port
from small_disk import SmallDisk
from small_faces import make_small_faces, write_run

from trainer.checkpoint import Position, Score, complete_checkpoints, read_description
from trainer.checkpoint.storage import RawReader
from trainer.cli import main
from trainer.run_checkpoints import RunCheckpoints

STEPS, EVERY = 30, 5
FIRST, NO_BYTE, HALF_A_FILE, NO_FILE, ROOM = 5, 10, 15, 20, 25  # what is so when that step is saved
DISK_BYTES = 96 << 20
DEADLINE_SECONDS = 90.0

Before = Callable[[RunCheckpoints, int], None]  # called on every rank before a checkpoint, with its step


@dataclass(frozen=True)
class Case:
    """full: "never", "meanwhile" or "at the end"."""

    ranks: int
    asynchronous: bool
    full: str

    @property
    def name(self) -> str:
        return f"{self.ranks}_{'asynchronous' if self.asynchronous else 'synchronous'}_{self.full.replace(' ', '_')}"


CASES = [
    *(Case(ranks, True, full) for ranks in (1, 2) for full in ("never", "meanwhile", "at the end")),
    Case(1, False, "meanwhile"),
]


def full_meanwhile(disk: SmallDisk, output: Path, notes: Path, rank: int, ranks: int, port: int) -> Before:
    """Three checkpoints meet a full disk, each at another place; the next one has room again."""

    def before(checkpoints: RunCheckpoints, step: int) -> None:
        checkpoints.finish()  # nothing is on its way while the disk changes
        if step == ROOM:
            with urllib.request.urlopen(f"http://127.0.0.1:{port + rank}/metrics", timeout=20) as answer:
                (notes / f"metrics_{rank}.txt").write_bytes(answer.read())
        if rank == 0:
            _note(checkpoints, step, output, notes)
            if step == NO_BYTE:
                disk.fill()
            elif step in (HALF_A_FILE, NO_FILE, ROOM):
                disk.make_room()
            if step == HALF_A_FILE:
                file = output / "checkpoints" / f"step_{FIRST:08d}" / "rank_0000.bin"
                disk.fill(leave=file.stat().st_size // 2)
            elif step == NO_FILE:
                disk.fill_with_files(leave=1 + ranks)  # the folder and the ranks' files, no description
        _meet()

    return before


def _meet() -> None:
    """The other ranks wait for rank 0."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def _note(checkpoints: RunCheckpoints, step: int, output: Path, notes: Path) -> None:
    """What lies there now, whether it is whole, and whether lines of the journal wait."""
    whole = [RawReader(path, read_description(path).tensors).verify() > 0 for path in complete_checkpoints(output)]
    note = {
        "step": step,
        "names": sorted(path.name for path in (output / "checkpoints").glob("*")),
        "whole": all(whole),
        "journal_waits": checkpoints._reporting.journal.problem is not None,
    }
    with (notes / "notes.jsonl").open("a") as file:
        file.write(json.dumps(note) + "\n")


def full_at_the_end(disk: SmallDisk, rank: int) -> Before:
    def before(checkpoints: RunCheckpoints, step: int) -> None:
        checkpoints.finish()
        if step == STEPS and rank == 0:
            disk.fill()
        _meet()

    return before


def hook(before: Before) -> None:
    """Let ``before`` happen in this process before each checkpoint."""
    save, save_now = RunCheckpoints.save, RunCheckpoints.save_now

    def hooked_save(self: RunCheckpoints, position: Position, score: Score | None) -> None:
        before(self, position.step)
        save(self, position, score)

    def hooked_save_now(self: RunCheckpoints, position: Position) -> None:
        before(self, position.step)
        save_now(self, position)

    RunCheckpoints.save, RunCheckpoints.save_now = hooked_save, hooked_save_now  # type: ignore[method-assign]


def launch(
    ranks: int, arguments: list[str], printed: Path, prepare: Callable[[int], None] = lambda rank: None
) -> list[int]:
    """``pfc ARGUMENTS`` on each rank, one process each: their exit codes, and what they print."""
    port = free_port()
    processes = []
    for rank in range(ranks):
        process = os.fork()
        if process == 0:
            code = 99
            try:
                descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
                if ranks > 1:
                    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
                    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                prepare(rank)
                code = main(arguments)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        processes.append(process)
    return [_exit_code(process) for process in processes]


def _exit_code(process: int) -> int:
    end = time.monotonic() + DEADLINE_SECONDS
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(process, 9)
            os.waitpid(process, 0)
            return 124
        time.sleep(0.01)


def play(case: Case, folder: Path, faces: Path) -> None:
    folder.mkdir()
    disk = SmallDisk(folder / "disk", DISK_BYTES)
    output, port = disk.place / "out", free_port()
    config = write_run(folder / "run.toml", output=output, faces=faces, steps=STEPS, batch_size=8 // case.ranks)
    settings = [f"checkpoint.asynchronous={str(case.asynchronous).lower()}", f"metrics.port={port}"]
    arguments = ["train", str(config), *(part for each in settings for part in ("--set", each))]
    codes = []
    if case.full == "never":
        codes.append(launch(case.ranks, arguments, folder / "printed_0.txt"))
    elif case.full == "meanwhile":
        codes.append(
            launch(
                case.ranks,
                arguments,
                folder / "printed_0.txt",
                lambda rank: hook(full_meanwhile(disk, output, folder, rank, case.ranks, port)),
            )
        )
    else:
        codes.append(
            launch(case.ranks, arguments, folder / "printed_0.txt", lambda rank: hook(full_at_the_end(disk, rank)))
        )
        codes.append(launch(case.ranks, arguments, folder / "printed_1.txt"))
        left = sorted(path.name for path in (output / "checkpoints").iterdir())
        (folder / "left.json").write_text(json.dumps(left))
        disk.make_room()
        codes.append(launch(case.ranks, arguments, folder / "printed_2.txt"))
    (folder / "codes.json").write_text(json.dumps(codes))
    shutil.copytree(output, folder / "out")


if __name__ == "__main__":
    torch.set_num_threads(1)
    importlib.import_module("trainer.commands.train")
    whole = Path(sys.argv[1])
    drawn = make_small_faces(whole / "faces")
    for each in CASES:
        play(each, whole / each.name, drawn)
