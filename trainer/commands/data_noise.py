"""``pfc data noise``: wrong labels on purpose, for robustness experiments."""

import argparse
from pathlib import Path
from typing import TypeAlias

from data_pipeline.draft import NOISE
from data_pipeline.noise import write_noisy
from trainer.commands.data_output import add_cut_options, add_output, cut_of
from trainer.errors import ExitCode

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_wrong_labels(args: argparse.Namespace) -> int:
    """Write a data set with label noise."""
    noise = write_noisy(
        args.input, args.output, closed_set=args.closed_set, open_set=args.open_set, distractors=args.distractors,
        seed=args.seed, cut=cut_of(args), plain=args.plain, overwrite=args.overwrite,
    )  # fmt: skip
    print(
        f"{args.output}: {len(noise.closed):,} images with the identity of another (closed set), "
        f"{len(noise.opened):,} replaced by images from outside (open set); the truth is in {args.output / NOISE}"
    )
    return ExitCode.DONE


def add_noise(commands: _Subparsers) -> None:
    """Add ``noise`` to the subcommands of ``pfc data``."""
    parser = commands.add_parser(
        "noise",
        help="flip a share of the labels, for robustness experiments",
        description=f"Write INPUT with label noise, in the same order; DIR/{NOISE} lists every changed image: index, "
        "kind, old, new, distractor. The images of a smaller share are among those of a larger one with the same seed.",
    )
    parser.add_argument("input", metavar="INPUT", type=Path, help="a .rec file or a folder of a data set")
    add_output(parser)
    parser.add_argument(
        "--closed-set", metavar="SHARE", type=float, default=0.0, help="of images that get another's identity, 0 to 1"
    )
    parser.add_argument(
        "--open-set", metavar="SHARE", type=float, default=0.0, help="of images replaced by one of --distractors"
    )
    parser.add_argument("--distractors", metavar="PATH", type=Path, help="data set of people who are not in INPUT")
    parser.add_argument("--seed", type=int, default=0)
    add_cut_options(parser)
    parser.set_defaults(handler=add_wrong_labels)
