"""``pfc data reshard``: split, merge, shuffle, filter, renumber, hold out."""

import argparse
from pathlib import Path
from typing import TypeAlias

from data_pipeline.draft import PAIRS
from data_pipeline.reshard import ReshardOptions, reshard
from trainer.commands.data_output import add_cut_options, add_output, cut_of
from trainer.errors import ExitCode

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def rewrite(args: argparse.Namespace) -> int:
    """Write data sets as another one."""
    options = ReshardOptions(
        spaces=args.identities, relabel_file=args.relabel_file, min_images=args.min_images, hold_out=args.hold_out,
        pairs=args.pairs, relabel=args.relabel, shuffle=args.shuffle, sort=args.sort, seed=args.seed,
        cut=cut_of(args), plain=args.plain,
    )  # fmt: skip
    written = reshard(args.inputs, args.output, options, overwrite=args.overwrite)
    shards = f" to {written.records[-1].name}" if len(written.records) > 1 else ""
    left_out = f", {written.dropped_images:,} images left out" if written.dropped_images else ""
    print(f"{written.records[0]}{shards}: {written.identities:,} identities, {written.images:,} images{left_out}")
    if written.held_out:
        print(f"{args.output / PAIRS}: {args.pairs:,} pairs of {written.held_out:,} identities held out")
    return ExitCode.DONE


def add_reshard(commands: _Subparsers) -> None:
    """Add ``reshard`` to the subcommands of ``pfc data``."""
    parser = commands.add_parser(
        "reshard",
        help="split, merge, shuffle, filter, renumber or hold out identities",
        description="Write data sets as one new data set; images are copied byte for byte. Steps are taken in the "
        "order of the options below. relabel.tsv in DIR says what became of every identity.",
    )
    parser.add_argument("inputs", metavar="INPUT", type=Path, nargs="+", help="a .rec file or a folder of a data set")
    add_output(parser)
    parser.add_argument(
        "--identities",
        choices=["separate", "shared", "named"],
        default="separate",
        help="of several inputs: other people in each, numbered on (default), the same numbers for the same people, or "
        "the same names (identities.tsv) for the same people: who is new is numbered on",
    )
    parser.add_argument(
        "--relabel-file",
        metavar="FILE",
        type=Path,
        help="lines 'OLD<tab>NEW', 'OLD<tab>drop', 'image<tab>INDEX<tab>NEW' or 'image<tab>INDEX<tab>drop'",
    )
    parser.add_argument("--min-images", metavar="N", type=int, default=1, help="drop identities with fewer images")
    parser.add_argument(
        "--hold-out", metavar="N", type=int, default=0, help=f"take N identities out, for pairs in DIR/{PAIRS}"
    )
    parser.add_argument("--pairs", metavar="P", type=int, default=6000, help="of identities held out (default: 6000)")
    parser.add_argument("--relabel", action="store_true", help="number the identities that are left 0, 1, 2, ...")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--shuffle", action="store_true", help="all images, uniformly (reads them one by one)")
    order.add_argument("--sort", action="store_true", help="by identity, as InsightFace's range records need it")
    parser.add_argument("--seed", type=int, default=0, help="of the shuffle and of what is held out (default: 0)")
    add_cut_options(parser)
    parser.set_defaults(handler=rewrite)
