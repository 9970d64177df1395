"""Options that all commands share which write a data set."""

import argparse
from pathlib import Path

from data_pipeline.shard_cut import ShardCut

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def add_cut_options(parser: argparse.ArgumentParser) -> None:
    """``--shards``, ``--images-per-shard``, ``--bytes-per-shard``, ``--plain`` and ``--overwrite``."""
    cuts = parser.add_mutually_exclusive_group()
    cuts.add_argument("--shards", metavar="N", type=int, help="record files of equal size (default: 1)")
    cuts.add_argument("--images-per-shard", metavar="N", type=int, help="most images in a record file")
    cuts.add_argument("--bytes-per-shard", metavar="SIZE", type=size, help="largest record file, as in 512M or 4G")
    parser.add_argument(
        "--plain",
        action="store_true",
        help="every record an image, as im2rec writes: for DALI's readers.mxnet and MXNet's ImageRecordIter "
        "(default: InsightFace's layout with header and range records)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a data set in the output folder")


def cut_of(args: argparse.Namespace) -> ShardCut:
    """The cut that these options ask for. Raises DataError for impossible numbers."""
    return ShardCut(shards=args.shards, max_images=args.images_per_shard, max_bytes=args.bytes_per_shard)


def add_output(parser: argparse.ArgumentParser) -> None:
    """``--output DIR``."""
    parser.add_argument("--output", metavar="DIR", type=Path, required=True, help="folder of the new data set")


def size(text: str) -> int:
    """Bytes: a whole number, with K, M or G (binary) behind it where wanted."""
    number, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in ("K", "M", "G") else (text, "")
    if not number.isascii() or not number.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it as 100000, 512M or 4G")
    return int(number) * _UNITS[unit]
