"""``pfc bench head``: what a step of the head costs, against the bare float32 logits product."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from partial_fc.center_module import DTYPES, MEMORIES
from trainer.bench.head_bench import bench_head
from trainer.bench.problem import METHODS, Effort, Row, Skipped, problems
from trainer.commands import (
    bench_checkpoint,
    bench_data,
    bench_eval,
    bench_journey,
    bench_plan,
    bench_restart,
    bench_scaling,
    bench_step,
)
from trainer.errors import ConfigError, ExitCode
from trainer.world import joined_world

DESCRIPTION = """\
One table from one run: the time of a training step (forward + backward + update with momentum 0.9 and decay 5e-4 +
zero_grad, on embeddings never seen before), in turn with the bare float32 product of centers and batch, peak memory
beyond the centers and bytes handed to collectives. On several ranks:
torchrun --nproc-per-node N -m trainer bench head ..."""

EPILOG = """\
methods:
  product            the bare product against itself: how far ratios on this machine can be trusted
  sface              this head in the steady phase of a training: positives at 0.9 rad
  sface-all-active   this head where embeddings share a direction and every pair is active: its worst phase
  sface-plain-torch  normalize, linear, SFace by autograd, torch.optim.SGD (one rank only)
  cosface            this head with CosFace over all classes
  cosface-0.1        the same with sample_rate 0.1

What does not fit in memory is skipped, with a line that says so. "extra MiB" is the peak of a rank's resident memory
(on a GPU: of its tensors) beyond its centers in the timed steps, everything included; "ever MiB" the same since the
first step."""


def add_parser(subparsers: Any) -> None:
    """Add ``bench`` to the command line."""
    parser = subparsers.add_parser("bench", help="measure on this machine, in ratios within one run")
    kinds = parser.add_subparsers(required=True, metavar="WHAT")
    head = kinds.add_parser(
        "head",
        help="a step of the head against the bare float32 product",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"nargs": "+"}
    head.add_argument(
        "--classes", type=int, **several, default=[10_000, 100_000], metavar="C", help="default 10000 100000"
    )
    head.add_argument("--embedding-dim", type=int, **several, default=[512], metavar="D", help="default 512")
    head.add_argument("--batch-size", type=int, **several, default=[256], metavar="B", help="per rank, default 256")
    head.add_argument(
        "--spread",
        type=float,
        **several,
        default=[0.06],
        metavar="S",
        help="standard deviation of negative cosines: 0.06 as in well-trained models (default), 0.10 as in weak or "
        "early ones; only sface is measured at more than the first",
    )
    head.add_argument(
        "--tolerance",
        type=float,
        **several,
        default=[1e-3],
        metavar="T",
        help="relative error of the batch's gradient allowed to sface, default 1e-3; 1e-5 for exact work; only sface "
        "is measured at more than the first",
    )
    head.add_argument(
        "--center-dtype",
        **several,
        choices=list(DTYPES),
        default=["float32"],
        metavar="T",
        help="what this head's centers are stored in: float32 (default), bfloat16 or both",
    )
    head.add_argument(
        "--center-memory",
        **several,
        choices=list(MEMORIES),
        default=["device"],
        metavar="M",
        help="where they are stored: device (default), host or both",
    )
    head.add_argument("--methods", **several, choices=METHODS, default=list(METHODS), metavar="M", help="default: all")
    head.add_argument(
        "--repetitions", type=int, default=5, metavar="N", help="timed pairs of product and step, default 5"
    )
    head.add_argument(
        "--warmup",
        type=int,
        default=8,
        metavar="N",
        help="steps before the first timed one, default 8: the head finds its cut and its buffers, and rows gather "
        "momentum. That lives for about 100 steps, so time and memory of sface still grow a little until then: take "
        "100 for final figures",
    )
    head.add_argument(
        "--threads", type=int, metavar="N", help="of arithmetic per rank; default: this machine's cores over the ranks"
    )
    head.add_argument("--device", default="cpu", help="cpu (default), auto, cuda or cuda:N")
    head.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures there, after each measurement")
    head.add_argument("--png", type=Path, metavar="FILE", help="also draw time and memory")
    head.add_argument("--seed", type=int, default=0, metavar="N", help="of centers, batches and sampling, default 0")
    head.set_defaults(handler=_run)
    bench_data.add_parser(kinds)
    bench_checkpoint.add_parser(kinds)
    bench_restart.add_parser(kinds)
    bench_step.add_parser(kinds)
    bench_eval.add_parser(kinds)
    bench_plan.add_parser(kinds)
    bench_journey.add_parser(kinds)
    bench_scaling.add_parser(kinds)


def _run(arguments: argparse.Namespace) -> ExitCode:
    _check(arguments)
    rows: list[Row] = []
    skipped: list[Skipped] = []
    with joined_world(arguments.device, expected_size=None, timeout_seconds=600.0, device_setting="--device") as world:
        if min(arguments.classes) < 2 * world.world_size:
            raise ConfigError(f"--classes {min(arguments.classes)}: every rank needs at least two")
        threads = arguments.threads or max(1, (os.cpu_count() or 1) // world.world_size)
        torch.set_num_threads(threads)
        effort = Effort(arguments.repetitions, arguments.warmup, threads, arguments.seed)
        sizes = problems(
            arguments.methods,
            classes=arguments.classes,
            embedding_dims=arguments.embedding_dim,
            batches=arguments.batch_size,
            spreads=arguments.spread,
            tolerances=arguments.tolerance,
            center_dtypes=arguments.center_dtype,
            center_memories=arguments.center_memory,
        )
        for result in bench_head(sizes, effort, world=world, now=time.perf_counter):
            if isinstance(result, Skipped):
                skipped.append(result)
            else:
                rows.append(result)
            if world.is_first:
                print(_progress(result), file=sys.stderr, flush=True)
                _save(arguments, rows)
        if world.is_first:
            _show(arguments, rows, skipped)
    return ExitCode.DONE


def _check(arguments: argparse.Namespace) -> None:
    for name, least in (
        ("classes", 1),
        ("embedding_dim", 2),
        ("batch_size", 1),
        ("repetitions", 1),
        ("warmup", 1),
        ("threads", 1),
        ("seed", 0),
    ):
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < least:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    for spread in arguments.spread:
        if not 0.0 < spread < 1.0:
            raise ConfigError(f"--spread {spread}: must lie between 0 and 1; try 0.06")
    for tolerance in arguments.tolerance:
        if not 0.0 <= tolerance < 1.0:
            raise ConfigError(f"--tolerance {tolerance}: is a relative error, at least 0 and below 1; try 1e-3")
    for path in (arguments.csv, arguments.png):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: no such folder; make it first")


def _progress(result: Row | Skipped) -> str:
    if isinstance(result, Skipped):
        return str(result)
    return f"{result.num_classes:,} classes, {result.method}: {result.ratio:.2f}x the bare product"


# The two import where they run: matplotlib takes a second that every other command would pay.


def _save(arguments: argparse.Namespace, rows: list[Row]) -> None:
    from trainer.bench.head_table import write_csv

    if arguments.csv is not None:
        write_csv(arguments.csv, rows)


def _show(arguments: argparse.Namespace, rows: list[Row], skipped: list[Skipped]) -> None:
    from trainer.bench.head_table import format_rows

    print("\n".join([format_rows(rows), *map(str, skipped)]))
    if arguments.png is not None and rows:
        from trainer.bench.head_picture import write_picture

        write_picture(arguments.png, rows)
