"""``pfc bench step``: the trainer's step against the sum of its parts, and what its metrics cost."""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from trainer.agreement import first_rank_decides
from trainer.available_memory import available_bytes
from trainer.backbones import BACKBONE_NAMES
from trainer.bench.memory_need import GIB
from trainer.bench.step_problem import StepEffort, StepResults
from trainer.complaint import complain
from trainer.errors import ConfigError, ExitCode
from trainer.failure_config import FailureConfig
from trainer.memory import keep_freed_memory
from trainer.pulse import Pulse
from trainer.stopping import stop_on_signals
from trainer.watched_world import watched_world

DESCRIPTION = """\
Runs the loop of pfc train on drawn faces, and between its steps each of their parts by itself on the same batches: bare
torch calls where the trainer wraps something. Round by round, the loop takes its steps on batches in memory, then on
batches that the loader decodes meanwhile. On several ranks: torchrun --nproc-per-node N -m trainer bench step ..."""

EPILOG = """\
The step on batches in memory over the sum of its parts is what the loop adds. Batches from the loader are decoded while
the step computes: where a core is free that ratio lies below the other one, where none is, decoding shows in full.
CPU: of all threads of the process; what others take from a shared machine is not in it, and neither is waiting.
"alone" counts all that is told of a step, called over and over; "in the loop" is the account of a step as the loop
gives it, cold caches included, without the watchdog's pulse and the clock of phases, which take microseconds."""

COLLECTIVE_SECONDS = 3600.0  # a round of a large backbone on a busy machine
NEEDED_OVER_CENTERS = 3.0  # bytes per byte of centers: themselves, the head's own, their momentum and gradient


def add_parser(kinds: Any) -> None:
    """Add ``bench step`` to the command line."""
    parser = kinds.add_parser(
        "step",
        help="the trainer's step against the sum of its parts; what metrics cost",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--backbone", nargs="+", choices=BACKBONE_NAMES, default=["mobilefacenet"], metavar="NAME",
        help=f"default mobilefacenet; of {', '.join(BACKBONE_NAMES)}",
    )  # fmt: skip
    parser.add_argument("--classes", type=int, nargs="+", default=[10_000], metavar="C", help="default 10000")
    parser.add_argument("--embedding-dim", **number, default=512, help="default 512")
    parser.add_argument("--batch-size", **number, default=64, help="per rank, default 64")
    parser.add_argument("--image-size", **number, default=112, help="pixels, default 112")
    parser.add_argument("--repetitions", **number, default=7, help="rounds, default 7")
    parser.add_argument("--steps", **number, default=3, help="of each kind in a round, default 3")
    parser.add_argument("--warmup", **number, default=3, help="steps before the first round, default 3")
    parser.add_argument("--threads", **number, help="of arithmetic per rank; default: this machine's cores over ranks")
    parser.add_argument("--decode-threads", **number, default=1, help="of the loader, default 1, as in a run")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR",
        help="where records and logs go meanwhile; all ranks must see it; default: the system's temporary folder",
    )  # fmt: skip
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures there, after each size")
    parser.add_argument("--seed", **number, default=0, help="default 0")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    _check(arguments)
    keep_freed_memory()  # as in training
    measured: list[StepResults] = []
    # While parts are measured, the loop does not get on: that is no stall.
    pulse, limits = Pulse(), FailureConfig(stall_seconds=COLLECTIVE_SECONDS)
    with (
        stop_on_signals() as stop,
        watched_world(
            "cpu", expected_size=None, timeout_seconds=COLLECTIVE_SECONDS, limits=limits, pulse=pulse, stop=stop
        ) as (world, watchdog),
    ):  # fmt: skip
        from trainer.bench.step_bench import bench_step  # imports what other commands need not wait for
        from trainer.bench.step_table import format_step, write_step_csv

        if min(arguments.classes) < 2 * world.world_size:
            raise ConfigError(f"--classes {min(arguments.classes)}: every rank needs at least two")
        threads = arguments.threads or max(1, (os.cpu_count() or 1) // world.world_size)
        torch.set_num_threads(threads)
        parent = arguments.folder or Path(tempfile.gettempdir())
        folder = Path(first_rank_decides(world, lambda: tempfile.mkdtemp(prefix="pfc-bench-", dir=parent)))

        def say(done: int) -> None:
            if world.is_first:
                print(f"round {done} of {arguments.repetitions}", file=sys.stderr, flush=True)

        try:
            for place, effort in enumerate(_efforts(arguments, threads)):
                inner = folder / str(place)
                first_rank_decides(world, inner.mkdir)
                code, results = bench_step(
                    effort, inner, world=world, pulse=pulse, stop=stop, name_of=watchdog.name_of, after_round=say
                )
                if results is not None and world.is_first:
                    measured.append(results)
                    print(("\n" if place else "") + format_step(results), flush=True)
                    if arguments.csv is not None:
                        write_step_csv(arguments.csv, measured)
                if code == ExitCode.STOPPED:
                    return complain("stopped on request, nothing is left to go on from", code)
        finally:
            if world.is_first:
                shutil.rmtree(folder, ignore_errors=True)
        stop.satisfied()
    return ExitCode.DONE


def _efforts(arguments: argparse.Namespace, threads: int) -> list[StepEffort]:
    return [
        StepEffort(
            backbone, arguments.image_size, classes, arguments.embedding_dim, arguments.batch_size,
            arguments.repetitions, arguments.steps, arguments.warmup, threads, arguments.decode_threads, arguments.seed,
        )
        for backbone in arguments.backbone
        for classes in arguments.classes
    ]  # fmt: skip


def _check(arguments: argparse.Namespace) -> None:
    least = {"classes": 2, "batch_size": 2, "image_size": 32, "seed": 0}
    for name in (
        "classes", "embedding_dim", "batch_size", "image_size", "repetitions", "steps", "warmup", "threads",
        "decode_threads", "seed",
    ):  # fmt: skip
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < least.get(name, 1):
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least.get(name, 1)}, got {value}")
    if arguments.folder is not None and not arguments.folder.is_dir():
        raise ConfigError(f"--folder {arguments.folder}: no such folder; make it first")
    if arguments.csv is not None and not arguments.csv.absolute().parent.is_dir():
        raise ConfigError(f"{arguments.csv}: no such folder; make it first")
    if arguments.csv is not None and arguments.csv.is_dir():
        raise ConfigError(f"--csv {arguments.csv}: is a folder; name a file")
    needed = NEEDED_OVER_CENTERS * 4 * max(arguments.classes) * arguments.embedding_dim
    available = available_bytes()
    if available is not None and needed > available:
        raise ConfigError(
            f"--classes {max(arguments.classes)}: needs about {needed / GIB:.1f} GiB of memory, "
            f"{available / GIB:.1f} GiB are free; measure fewer"
        )
