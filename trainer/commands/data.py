"""``pfc data``: make data sets and look into them; the commands that write one have files of their own."""

import argparse
from pathlib import Path
from typing import TypeAlias

from data_pipeline.augmentation_sheet import write_augmentation_sheet
from data_pipeline.contact_sheet import write_contact_sheet
from data_pipeline.index import rebuild_index
from data_pipeline.reader import RecordReader
from data_pipeline.summary import describe, find_records, summarize
from trainer.commands import verify
from trainer.commands.data_clean import add_clean
from trainer.commands.data_noise import add_noise
from trainer.commands.data_pack import add_pack
from trainer.commands.data_reshard import add_reshard
from trainer.commands.data_synth import add_synth
from trainer.config import load_config
from trainer.errors import ConfigError, ExitCode

_Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_parser(subparsers: _Subparsers) -> None:
    """Add ``pfc data`` and its subcommands to the command line."""
    parser = subparsers.add_parser("data", help="pack, inspect, rewrite or synthesize face data sets")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_pack(commands)
    _add_inspect(commands)
    verify.add_parser(commands)
    add_synth(commands)
    add_reshard(commands)
    add_noise(commands)
    add_clean(commands)


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
        if args.augmentation is None:
            print(describe(summarize(reader)))
            write_contact_sheet(reader, args.sheet)
        else:
            run = load_config(args.augmentation)
            write_augmentation_sheet(
                reader, args.sheet, run.data.build_augmentation(), seed=run.run.seed, image_size=run.data.image_size
            )
    print(f"{'contact sheet':20}{args.sheet}")
    return ExitCode.DONE


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
    parser.add_argument(
        "--augmentation", metavar="RUN.toml", type=Path,
        help="draw a sheet of what this run's augmentation makes of some images, a column an epoch, and nothing else",
    )  # fmt: skip
    parser.set_defaults(handler=inspect)
