"""``pfc bench restart``: from the death of a rank to the next step of the run."""

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from trainer.backbones import BACKBONE_NAMES
from trainer.bench.restart_problem import PARTS, Restart, RestartEffort, RestartRow
from trainer.errors import ConfigError, ExitCode
from trainer.world import launched_place

DESCRIPTION = """\
Trains under the launcher (python -m deploy.launch.agent --max-restarts), kills one rank after the other with SIGKILL
some steps after a checkpoint, and takes the time until the run, started again, has taken its first step: from the log
of rank 0, which tells what a start is made of, and from the launcher's lines."""


def add_parser(kinds: Any) -> None:
    """Add ``bench restart`` to the command line."""
    parser = kinds.add_parser(
        "restart",
        help="how long until a run whose rank was killed takes its next step",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--classes", type=int, nargs="+", default=[100_000], metavar="C", help="default 100000")
    parser.add_argument("--ranks", **number, default=2, help="default 2")
    parser.add_argument("--embedding-dim", **number, default=512, help="default 512")
    parser.add_argument("--batch-size", **number, default=16, help="per rank, default 16")
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default="mobilefacenet", help="default mobilefacenet")
    parser.add_argument("--image-size", **number, default=112, help="pixels, default 112")
    parser.add_argument("--images", **number, default=2000, help="drawn for the occasion, default 2000")
    parser.add_argument("--repetitions", **number, default=5, help="restarts, default 5")
    parser.add_argument("--checkpoint-steps", **number, default=5, help="steps between two checkpoints, default 5")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where the run goes, on the disk to measure; default: here"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument("--seed", **number, default=0, help="default 0")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    _check(arguments)
    from trainer.bench.restart_table import format_restart_rows, write_restart_csv

    rows: list[RestartRow] = []
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)  # clears up, as Ctrl-C does
    try:
        for classes in arguments.classes:
            rows.append(_measure(arguments, classes))
            if arguments.csv is not None:
                write_restart_csv(arguments.csv, rows)
    finally:
        signal.signal(signal.SIGTERM, former)
    print(format_restart_rows(rows))
    return ExitCode.DONE


def _measure(arguments: argparse.Namespace, classes: int) -> RestartRow:
    from trainer.bench.restart_bench import bench_restart

    def say(done: int, restart: Restart) -> None:
        parts = ", ".join(f"{part.replace('_', ' ')} {getattr(restart, part):.2f}" for part in PARTS)
        text = f"{classes:,} classes: restart {done} of {arguments.repetitions} took {restart.total:.1f} s: {parts}"
        print(text, file=sys.stderr, flush=True)

    effort = RestartEffort(
        num_classes=classes,
        embedding_dim=arguments.embedding_dim,
        batch=arguments.batch_size,
        backbone=arguments.backbone,
        image_size=arguments.image_size,
        images=arguments.images,
        world_size=arguments.ranks,
        repetitions=arguments.repetitions,
        checkpoint_steps=arguments.checkpoint_steps,
        seed=arguments.seed,
    )
    parent = (arguments.folder or Path.cwd()).absolute()
    folder = Path(tempfile.mkdtemp(prefix=".pfc-bench-", dir=parent))
    try:
        return bench_restart(effort, folder, after_each=say)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(arguments: argparse.Namespace) -> None:
    if launched_place()[1] > 1:
        raise ConfigError("bench restart starts its ranks itself: call it without a launcher, with --ranks N")
    if not Path("/proc/self/stat").exists():
        raise ConfigError("bench restart reads /proc, which this system does not have")
    least = {"classes": 2 * arguments.ranks, "seed": 0}
    for name in (
        "classes", "ranks", "embedding_dim", "batch_size", "image_size", "images", "repetitions", "checkpoint_steps",
        "seed",
    ):  # fmt: skip
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if value < least.get(name, 1):
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least.get(name, 1)}, got {value}")
    if arguments.images < arguments.batch_size * arguments.ranks:
        raise ConfigError(
            f"--images {arguments.images}: a batch takes {arguments.batch_size * arguments.ranks}, draw more"
        )
    if min(arguments.classes) < arguments.images // 10:
        raise ConfigError(f"--images {arguments.images}: ten are drawn of each identity, draw fewer or raise --classes")
    if arguments.folder is not None and not arguments.folder.is_dir():
        raise ConfigError(f"--folder {arguments.folder}: no such folder; make it first")
    if arguments.csv is not None and not arguments.csv.absolute().parent.is_dir():
        raise ConfigError(f"{arguments.csv}: no such folder; make it first")
