"""``pfc bench scaling``: how a step of the head grows with classes, batch and ranks."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from trainer.bench.scaling_problem import AXES, WORLD, LeftOut, ScalingEffort, ScalingPoint, ScalingRow, describe
from trainer.errors import ConfigError, ExitCode
from trainer.world import launched_place

DESCRIPTION = """\
Measures a step of the head (SFace over all classes; forward, backward, update) at sizes along three axes, each size in
processes of its own: time by the wall clock, the processor's time of a rank outside and inside collectives, memory,
bytes handed to collectives. Then exponents of power laws with their standard errors, beside theory: linear in classes
once they outweigh a step's fixed cost, at most linear in the batch, 1/ranks where ranks share one global batch."""

EPILOG = """\
In pieces: --axes, --classes, ... choose sizes, and --json FILE adds what is measured to what is in FILE already; --draw
measures nothing and shows all of FILE. Where there are more ranks than cores they take turns: then the wall clock says
little, and the processor's time tells what a rank computes."""


def add_parser(kinds: Any) -> None:
    """Add ``bench scaling`` to the command line."""
    parser = kinds.add_parser(
        "scaling",
        help="how a step of the head grows with classes, batch and ranks",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"type": int, "nargs": "+"}
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), metavar="AXIS", help=f"of {AXES}")
    default = [10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 4_000_000]
    parser.add_argument("--classes", **several, default=default, metavar="C", help="default 10000 ... 4000000")
    default = [64, 128, 256, 512, 1024, 2048]
    parser.add_argument("--batches", **several, default=default, metavar="N", help="default 64 ... 2048")
    parser.add_argument("--worlds", **several, default=[1, 2, 3, 4], metavar="W", help="ranks, default 1 2 3 4")
    parser.add_argument("--embedding-dim", **number, default=512, help="default 512")
    parser.add_argument("--fixed-classes", **number, default=300_000, help="on the other axes, default 300000")
    parser.add_argument("--fixed-batch", **number, default=256, help="global, on the other axes, default 256")
    parser.add_argument("--spread", type=float, default=0.06, metavar="S", help="of negative cosines, default 0.06")
    parser.add_argument("--tolerance", type=float, default=1e-3, metavar="T", help="default 1e-3")
    parser.add_argument("--repetitions", **number, default=9, help="timed steps, default 9")
    parser.add_argument(
        "--warmup", **number, default=20, help="steps before, in which rows gather momentum, default 20"
    )
    parser.add_argument(
        "--threads", **number, help="of arithmetic where there is one rank; default: this machine's cores"
    )
    parser.add_argument("--seed", **number, default=0, help="default 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add all figures to that file, size by size")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw them: .png or .svg")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write the table there (Markdown)")
    parser.add_argument("--draw", action="store_true", help="measure nothing: what is in --json")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    _check(arguments)
    from trainer.bench.scaling_bench import bench_scaling, scaling_points
    from trainer.bench.scaling_file import merged, read_rows, write_rows
    from trainer.plan.local_ranks import terminated_as_interrupted

    rows = [] if arguments.json is None else read_rows(arguments.json)
    left_out: list[LeftOut] = []
    if not arguments.draw:
        points = _points(arguments, scaling_points)
        effort = ScalingEffort(
            arguments.repetitions, arguments.warmup, arguments.spread, arguments.tolerance, arguments.seed
        )
        _check_alike(rows, effort, arguments.json)
        with terminated_as_interrupted():
            for found in bench_scaling(points, effort):
                print(_progress(found), file=sys.stderr, flush=True)
                if isinstance(found, LeftOut):
                    left_out.append(found)
                    continue
                rows = merged(rows, [found])
                if arguments.json is not None:
                    write_rows(arguments.json, rows)
    _show(arguments, rows, left_out)
    return ExitCode.DONE


def _check_alike(rows: list[ScalingRow], effort: ScalingEffort, path: Path) -> None:
    for row in rows:
        if (row.effort.spread, row.effort.tolerance) != (effort.spread, effort.tolerance):
            raise ConfigError(
                f"--json {path}: holds sizes at spread {row.effort.spread:g} and tolerance {row.effort.tolerance:g}, "
                f"which do not go together with {effort.spread:g} and {effort.tolerance:g}: name another file"
            )


def _points(arguments: argparse.Namespace, choose: Any) -> list[ScalingPoint]:
    points: list[ScalingPoint] = list(
        choose(
            arguments.axes,
            classes=arguments.classes,
            batches=arguments.batches,
            worlds=arguments.worlds,
            embedding_dim=arguments.embedding_dim,
            fixed_classes=arguments.fixed_classes,
            fixed_batch=arguments.fixed_batch,
            threads=arguments.threads or os.cpu_count() or 1,
        )
    )
    return points


def _show(arguments: argparse.Namespace, rows: list[ScalingRow], left_out: list[LeftOut]) -> None:
    from data_pipeline.pending_file import write_file
    from trainer.bench.scaling_table import format_scaling

    text = format_scaling(rows, left_out)
    print(text)
    if arguments.table is not None:
        write_file(arguments.table, text + "\n")
    if arguments.picture is not None and rows:
        from trainer.bench.scaling_picture import write_picture  # matplotlib takes a second to import

        write_picture(arguments.picture, rows)


def _progress(found: ScalingRow | LeftOut) -> str:
    if isinstance(found, LeftOut):
        return str(found)
    return f"{describe(found.point)}: {found.wall:.3f} s a step, {found.memory / (1 << 20):,.0f} MiB"


def _check(arguments: argparse.Namespace) -> None:
    if launched_place()[1] > 1:
        raise ConfigError("bench scaling starts its ranks itself: call it without a launcher, with --worlds 1 2 ...")
    least = {"embedding_dim": 2, "seed": 0}
    for name in (
        "classes", "batches", "worlds", "embedding_dim", "fixed_classes", "fixed_batch", "repetitions", "warmup",
        "threads", "seed",
    ):  # fmt: skip
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and value < least.get(name, 1):
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least.get(name, 1)}, got {value}")
    most = max(arguments.worlds) if WORLD in arguments.axes else 1
    if min(arguments.fixed_classes, *arguments.classes) < 2 * most:
        raise ConfigError(f"--classes, --fixed-classes: each of {most} ranks needs at least two")
    if not 0.0 < arguments.spread < 1.0:
        raise ConfigError(f"--spread {arguments.spread}: must lie between 0 and 1; try 0.06")
    if not 0.0 <= arguments.tolerance < 1.0:
        raise ConfigError(f"--tolerance {arguments.tolerance}: is a relative error, at least 0 and below 1; try 1e-3")
    if arguments.draw and (arguments.json is None or not arguments.json.exists()):
        raise ConfigError("--draw shows what is in --json FILE: name one that exists")
    for path in (arguments.json, arguments.picture, arguments.table):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: no such folder; make it first")
    if arguments.picture is not None and arguments.picture.suffix not in (".png", ".svg"):
        raise ConfigError(f"--picture {arguments.picture}: name it .png or .svg")
