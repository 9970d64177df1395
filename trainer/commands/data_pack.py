"""``pfc data pack``: images in folders or in a list file become a data set."""

import argparse
import sys
from pathlib import Path
from typing import TypeAlias

from data_pipeline.pack import PackOptions, pack_images
from data_pipeline.record_set import UNFINISHED
from trainer.commands.data_output import add_cut_options, add_output, cut_of
from trainer.errors import ExitCode

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def pack(args: argparse.Namespace) -> int:
    """Pack a folder-per-identity tree or the images of a list file."""
    options = PackOptions(
        image_size=args.image_size, quality=args.quality, skip_bad=args.skip_bad, plain=args.plain, cut=cut_of(args)
    )
    try:
        packed = pack_images(
            args.source, args.output, options,
            root=args.root, overwrite=args.overwrite, resume=args.resume, workers=args.workers,
        )  # fmt: skip
    except (KeyboardInterrupt, OSError) as error:
        if not (args.output / UNFINISHED).exists():
            raise
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{error.filename}: {error.strerror}"
        kept = f"what is done lies in {args.output / UNFINISHED}: run the same command with --resume to continue"
        print(f"pfc: error: {reason}; {kept}", file=sys.stderr)
        return ExitCode.FAILURE
    for line in packed.skipped:
        print(f"left out: {line}")
    left_out = f", {len(packed.skipped):,} left out" if packed.skipped else ""
    print(f"{packed.records}: {packed.identities:,} identities, {packed.images:,} images{left_out}")
    return ExitCode.DONE


def add_pack(commands: _Subparsers) -> None:
    """Add ``pack`` to the subcommands of ``pfc data``."""
    parser = commands.add_parser(
        "pack",
        help="pack images in folders or in a list file",
        description="Write DIR/{train.rec,train.idx,property,identities.tsv} from FOLDER/NAME/IMAGE, or from a list "
        "file with lines 'index<tab>label<tab>path' (im2rec's .lst) or 'path<tab>identity name'. Faces should be "
        "aligned already: images are resized, not cropped. The result does not depend on the number of workers.",
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="folder with a folder per identity, or list file")
    add_output(parser)
    parser.add_argument("--root", metavar="DIR", type=Path, help="of the paths in a list file (default: its folder)")
    parser.add_argument("--image-size", metavar="PIXELS", type=int, default=112, help="height and width (default: 112)")
    parser.add_argument("--quality", metavar="Q", type=int, default=95, help="of images encoded anew (default: 95)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out unreadable images instead of stopping")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that decode (default: 1)")
    parser.add_argument("--resume", action="store_true", help="continue the same pack where it was interrupted")
    add_cut_options(parser)
    parser.set_defaults(handler=pack)
