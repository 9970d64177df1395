"""``pfc bench checkpoint``: how long training waits for a checkpoint, synchronous and asynchronous."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from trainer.agreement import first_rank_decides
from trainer.available_memory import available_bytes
from trainer.backbones import BACKBONE_NAMES
from trainer.bench.checkpoint_problem import CheckpointEffort, CheckpointRow
from trainer.bench.memory_need import GIB
from trainer.errors import ConfigError, ExitCode
from trainer.memory import keep_freed_memory
from trainer.world import World, joined_world

DESCRIPTION = """\
Saves an SFace head with momentum and a backbone while the head trains: in each round a synchronous checkpoint, some
steps alone, and an asynchronous checkpoint with steps until it is complete. Ratios are taken round by round. On several
ranks: torchrun --nproc-per-node N -m trainer bench checkpoint ..."""

NEEDED_OVER_CENTERS = 4.0  # bytes per byte of centers: themselves, the head's own, and the copies


def add_parser(kinds: Any) -> None:
    """Add ``bench checkpoint`` to the command line."""
    parser = kinds.add_parser(
        "checkpoint",
        help="how long training waits for a checkpoint",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--classes", type=int, nargs="+", default=[100_000], metavar="C", help="default 100000; 1000000 needs 9 GiB"
    )
    parser.add_argument("--embedding-dim", **number, default=512, help="default 512")
    parser.add_argument("--batch-size", **number, default=128, help="per rank, default 128")
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default="iresnet50", help="saved, too; default iresnet50")
    parser.add_argument("--repetitions", **number, default=5, help="rounds, default 5")
    parser.add_argument(
        "--warmup", **number, default=20, help="steps before the first round, in which rows gather momentum, default 20"
    )
    parser.add_argument("--threads", **number, help="of arithmetic per rank; default: this machine's cores over ranks")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where checkpoints go, on the disk to measure; default: here"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument("--seed", **number, default=0, help="default 0")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    _check(arguments)
    keep_freed_memory()  # as in training
    rows: list[CheckpointRow] = []
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # clears up, as Ctrl-C does
    try:
        return _measure_all(arguments, rows)
    finally:
        signal.signal(signal.SIGTERM, former)


def _measure_all(arguments: argparse.Namespace, rows: list[CheckpointRow]) -> ExitCode:
    with joined_world("cpu", expected_size=None, timeout_seconds=600.0) as world:
        threads = arguments.threads or max(1, (os.cpu_count() or 1) // world.world_size)
        torch.set_num_threads(threads)
        parent = arguments.folder or Path.cwd()
        name = first_rank_decides(world, lambda: tempfile.mkdtemp(prefix=".pfc-bench-", dir=parent))
        try:
            for classes in arguments.classes:
                rows.append(_measure(arguments, classes, threads, Path(name), world))
                if world.is_first:
                    _save(arguments, rows)
        finally:
            if world.is_first:
                shutil.rmtree(name, ignore_errors=True)  # empty, unless it was interrupted while writing
        if world.is_first:
            from trainer.bench.checkpoint_table import format_checkpoint_rows

            print(format_checkpoint_rows(rows))
    return ExitCode.DONE


def _measure(arguments: argparse.Namespace, classes: int, threads: int, folder: Path, world: World) -> CheckpointRow:
    from trainer.bench.checkpoint_bench import bench_checkpoint  # imports what other commands need not wait for

    def say(done: int) -> None:
        if world.is_first:
            print(f"{classes:,} classes: round {done} of {arguments.repetitions}", file=sys.stderr, flush=True)

    effort = CheckpointEffort(
        classes, arguments.embedding_dim, arguments.batch_size, arguments.backbone, arguments.repetitions,
        arguments.warmup, threads, arguments.seed,
    )  # fmt: skip
    return bench_checkpoint(effort, folder, world=world, now=time.perf_counter, after_round=say)


def _check(arguments: argparse.Namespace) -> None:
    least = {"classes": 2, "seed": 0}
    for name in (
        "classes", "embedding_dim", "batch_size", "repetitions", "warmup", "threads", "seed",
    ):  # fmt: skip
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < least.get(name, 1):
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least.get(name, 1)}, got {value}")
    if arguments.folder is not None and not arguments.folder.is_dir():
        raise ConfigError(f"--folder {arguments.folder}: no such folder; make it first")
    if arguments.csv is not None and not arguments.csv.absolute().parent.is_dir():
        raise ConfigError(f"{arguments.csv}: no such folder; make it first")
    needed = NEEDED_OVER_CENTERS * 4 * max(arguments.classes) * arguments.embedding_dim
    available = available_bytes()
    if available is not None and needed > available:
        raise ConfigError(
            f"--classes {max(arguments.classes)}: needs about {needed / GIB:.1f} GiB of memory, "
            f"{available / GIB:.1f} GiB are free; measure fewer"
        )


def _save(arguments: argparse.Namespace, rows: list[CheckpointRow]) -> None:
    from trainer.bench.checkpoint_table import write_checkpoint_csv

    if arguments.csv is not None:
        write_checkpoint_csv(arguments.csv, rows)
