"""``pfc bench head``: what a step of the head costs, against the bare float32 logits product."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

from trainer.bench.head_bench import METHODS, PLAIN, Problem, Row, bench_head
from trainer.errors import ConfigError, ExitCode
from trainer.world import joined_world


def add_parser(subparsers: Any) -> None:
    """Add ``bench`` to the command line."""
    parser = subparsers.add_parser("bench", help="measure on this machine, in ratios within one run")
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    head = kinds.add_parser(
        "head",
        help="a step of the head against the bare float32 product",
        description="Times forward + backward + update (momentum 0.9, decay 5e-4) in turn with the float32 product of "
        "centers and batch. On several ranks: torchrun --nproc-per-node N -m trainer bench head ...",
    )
    head.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000], metavar="C")
    head.add_argument("--embedding-dim", type=int, default=512, metavar="D")
    head.add_argument("--batch-size", type=int, default=256, metavar="B", help="per rank (default 256)")
    head.add_argument(
        "--spread",
        type=float,
        default=0.06,
        help="standard deviation of negative cosines: 0.06 as in well-trained models (default), 0.10 as in weak ones",
    )
    head.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    head.add_argument("--repetitions", type=int, default=5, metavar="N")
    head.add_argument("--threads", type=int, default=2, metavar="N", help="arithmetic threads per rank (default 2)")
    head.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures there")
    head.add_argument("--png", type=Path, metavar="FILE", help="also draw the ratios")
    head.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    for name in ("embedding_dim", "batch_size", "repetitions", "threads"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(arguments, name)}")
    if not 0.0 < arguments.spread < 1.0:
        raise ConfigError(f"--spread {arguments.spread}: must lie between 0 and 1; try 0.06")
    for path in (arguments.csv, arguments.png):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: no such folder; make it first")
    torch.set_num_threads(arguments.threads)
    rows: list[Row] = []
    with joined_world("cpu", expected_size=None, timeout_seconds=600.0) as world:
        if min(arguments.classes) < 2 * world.world_size:
            raise ConfigError(f"--classes {min(arguments.classes)}: every rank needs at least two")
        methods = tuple(method for method in arguments.methods if method != PLAIN or world.world_size == 1)
        for num_classes in arguments.classes:
            problem = Problem(num_classes, arguments.embedding_dim, arguments.batch_size, arguments.spread)
            for row in bench_head(
                problem, methods, world=world, repetitions=arguments.repetitions, now=time.perf_counter
            ):
                rows.append(row)
                if world.is_first:
                    print(
                        f"{row.num_classes:,} classes, {row.method}: {row.ratio:.2f}x the bare product",
                        file=sys.stderr,
                        flush=True,
                    )
        if world.is_first:
            _show(arguments, rows)
    return ExitCode.DONE


def _show(arguments: argparse.Namespace, rows: list[Row]) -> None:
    # Imported here: drawing takes a second that every other command would pay.
    from trainer.bench.head_table import format_rows, write_csv, write_picture

    print(format_rows(rows))
    if arguments.csv is not None:
        write_csv(arguments.csv, rows)
    if arguments.png is not None:
        write_picture(arguments.png, rows)
