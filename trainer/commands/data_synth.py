"""``pfc data synth``: a data set drawn from nothing."""

import argparse
from pathlib import Path
from typing import TypeAlias

from trainer.commands.data_output import add_cut_options, cut_of
from trainer.errors import ExitCode

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def synth(args: argparse.Namespace) -> int:
    """Draw a data set of synthetic identities."""
    from data_pipeline.synthetic import synthesize  # slow to import: the other commands do without it

    synthesize(
        args.output, identities=args.identities, images_per_identity=args.images_per_identity,
        unseen_identities=args.unseen_identities, pairs=args.pairs, image_size=args.image_size,
        seed=args.seed, workers=args.workers, style=args.style, cut=cut_of(args), plain=args.plain,
        overwrite=args.overwrite,
    )  # fmt: skip
    print(f"{args.output}: {args.identities:,} identities, {args.pairs:,} pairs of unseen identities")
    return ExitCode.DONE


def add_synth(commands: _Subparsers) -> None:
    """Add ``synth`` to the subcommands of ``pfc data``."""
    parser = commands.add_parser(
        "synth",
        help="draw a data set of synthetic identities",
        description="Write OUTPUT/{train.rec,train.idx,property,verification.bin}: drawn faces, pairs of unseen ones. "
        "Memory does not grow with the number of identities.",
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path)
    parser.add_argument("--identities", metavar="N", type=int, required=True, help="identities to train on")
    parser.add_argument("--images-per-identity", metavar="M", type=int, required=True)
    parser.add_argument("--unseen-identities", metavar="N", type=int, default=100, help="for pairs (default: 100)")
    parser.add_argument("--pairs", metavar="N", type=int, default=1000, help="verification pairs (default: 1000)")
    parser.add_argument("--image-size", metavar="PIXELS", type=int, default=112, help="height and width (default: 112)")
    parser.add_argument(
        "--style",
        choices=["face", "simple"],
        default="face",
        help="faces, or colour patterns, over three times as fast, for millions of identities (default: face)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that draw (default: 1)")
    add_cut_options(parser)
    parser.set_defaults(handler=synth)
