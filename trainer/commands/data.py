"""``pfc data pack|inspect|synth``: make a data set from folders or from nothing, and look into one."""

import argparse
from pathlib import Path
from typing import TypeAlias

from data_pipeline.contact_sheet import write_contact_sheet
from data_pipeline.index import rebuild_index
from data_pipeline.pack import pack_folder
from data_pipeline.reader import RecordReader
from data_pipeline.summary import describe, find_records, summarize
from trainer.errors import ConfigError, ExitCode

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``pfc data`` and its subcommands to the command line."""
    parser = subparsers.add_parser("data", help="pack, inspect or synthesize face data sets")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_pack(commands)
    _add_inspect(commands)
    _add_synth(commands)


def pack(args: argparse.Namespace) -> int:
    """Pack a folder-per-identity tree."""
    packed = pack_folder(
        args.folder, args.output, image_size=args.image_size, quality=args.quality,
        skip_bad=args.skip_bad, overwrite=args.overwrite,
    )  # fmt: skip
    for line in packed.skipped:
        print(f"left out: {line}")
    left_out = f", {len(packed.skipped):,} left out" if packed.skipped else ""
    print(f"{packed.records}: {packed.identities:,} identities, {packed.images:,} images{left_out}")
    return ExitCode.DONE


def inspect(args: argparse.Namespace) -> int:
    """Print what a data set holds and draw a sheet of it, or rebuild its indexes."""
    paths = find_records(args.path)
    if args.rebuild_index:
        for path in paths:
            rebuilt = rebuild_index(path)
            lost = f"; {rebuilt.lost_bytes:,} bytes at the end hold no whole record" if rebuilt.lost_bytes else ""
            print(f"{rebuilt.path}: {rebuilt.records:,} records{lost}")
        return ExitCode.DONE
    if not args.sheet.parent.is_dir():
        raise ConfigError(f"--sheet {args.sheet}: the folder {args.sheet.parent} does not exist: make it first")
    with RecordReader(paths) as reader:
        print(describe(summarize(reader)))
        write_contact_sheet(reader, args.sheet)
    print(f"{'contact sheet':20}{args.sheet}")
    return ExitCode.DONE


def synth(args: argparse.Namespace) -> int:
    """Draw a data set of synthetic identities."""
    from data_pipeline.synthetic import synthesize  # slow to import: the other commands do without it

    synthesize(
        args.output, identities=args.identities, images_per_identity=args.images_per_identity,
        unseen_identities=args.unseen_identities, pairs=args.pairs, image_size=args.image_size,
        seed=args.seed, workers=args.workers,
    )  # fmt: skip
    print(f"{args.output}: {args.identities:,} identities, {args.pairs:,} pairs of unseen identities")
    return ExitCode.DONE


def _add_pack(commands: _Subparsers) -> None:
    parser = commands.add_parser(
        "pack",
        help="pack a folder with one folder of images per identity",
        description="Write DIR/{train.rec,train.idx,property,identities.txt} from FOLDER/NAME/IMAGE. Faces should be "
        "aligned already: images are resized, not cropped.",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--output", metavar="DIR", type=Path, required=True)
    parser.add_argument("--image-size", metavar="PIXELS", type=int, default=112, help="height and width (default: 112)")
    parser.add_argument("--quality", metavar="Q", type=int, default=95, help="of images encoded anew (default: 95)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out unreadable images instead of stopping")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set in DIR")
    parser.set_defaults(handler=pack)


def _add_inspect(commands: _Subparsers) -> None:
    parser = commands.add_parser(
        "inspect",
        help="print what a data set holds and write a contact sheet",
        description="Print identities, images, images per identity, sizes and what looks wrong; write a contact sheet "
        "with a row of images for some identities.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="a .rec file or a folder of them")
    sheet = Path("contact_sheet.png")
    parser.add_argument("--sheet", metavar="FILE", type=Path, default=sheet, help=f"PNG to write (default: {sheet})")
    parser.add_argument(
        "--rebuild-index", action="store_true", help="write the .idx anew by scanning the .rec, and do nothing else"
    )
    parser.set_defaults(handler=inspect)


def _add_synth(commands: _Subparsers) -> None:
    parser = commands.add_parser(
        "synth",
        help="draw a data set of synthetic identities",
        description="Write OUTPUT/{train.rec,train.idx,property,verification.bin}: drawn faces, pairs of unseen ones.",
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path)
    parser.add_argument("--identities", metavar="N", type=int, required=True, help="identities to train on")
    parser.add_argument("--images-per-identity", metavar="M", type=int, required=True)
    parser.add_argument("--unseen-identities", metavar="N", type=int, default=100, help="for pairs (default: 100)")
    parser.add_argument("--pairs", metavar="N", type=int, default=1000, help="verification pairs (default: 1000)")
    parser.add_argument("--image-size", metavar="PIXELS", type=int, default=112, help="height and width (default: 112)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that draw (default: 1)")
    parser.set_defaults(handler=synth)
