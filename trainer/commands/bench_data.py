"""``pfc bench data``: images a second of this loader, of DALI alone and of a PIL DataLoader; what opening costs."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from data_pipeline import RecordReader
from data_pipeline.decoders import choose_device
from data_pipeline.image_size import jpeg_size
from trainer.bench.data_problem import METHODS, DataEffort, OpeningRow, ThroughputRow
from trainer.errors import ConfigError, ExitCode
from trainer.memory import keep_freed_memory

DESCRIPTION = """\
One table from one run: loaders take turns on the same records, and each round gives a ratio. Then what it takes to open
an index of many records, in a fresh process each time."""

EPILOG = """\
methods (-flip: half of the images mirrored; a ratio to DALI is to the one with the same flip):
  dali, dali-flip    DALI alone: readers.mxnet, decoders.image, crop_mirror_normalize, on an index of the images only
  pfc, pfc-flip      this loader, decoder "dali"
  pfc-cpu-flip       this loader, decoder "cpu"
  pil-flip           PIL in a torch DataLoader with --workers processes
opening:
  pfc                RecordReader on one file and on ten; images are holes, the index is real
  python-dict        the index in a dict, as mxnet.recordio.MXIndexedRecordIO keeps it

All of them hand out float32 [B, 3, H, W] in [-1, 1]. An epoch never ends while it is measured."""

_EACH = 25  # synthetic images of one identity


def add_parser(kinds: Any) -> None:
    """Add ``bench data`` to the command line."""
    parser = kinds.add_parser(
        "data",
        help="loading images against DALI alone and a PIL DataLoader; opening an index",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--records", type=Path, nargs="+", metavar="PATH",
        help=".rec files or folders of them; default: synthetic faces, drawn for the occasion",
    )  # fmt: skip
    parser.add_argument("--images", **number, default=3000, help="synthetic faces drawn, default 3000")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="M", help="default: all"
    )
    parser.add_argument("--batch-size", **number, default=128, help="default 128")
    parser.add_argument("--image-size", **number, help="pixels; default: as the first image")
    parser.add_argument("--device", default="cpu", help="where DALI decodes: cpu (default), cuda, cuda:1")
    parser.add_argument("--threads", **number, default=cores, help=f"of decoding; default: all cores, here {cores}")
    parser.add_argument("--workers", **number, default=cores, help=f"of the DataLoader; default: cores, here {cores}")
    parser.add_argument("--prefetch", **number, default=2, help="batches ahead, of DALI and of this loader; default 2")
    parser.add_argument("--batches", **number, default=30, help="timed in a turn, default 30")
    parser.add_argument("--repetitions", **number, default=9, help="rounds, default 9; of opening, a third of it")
    parser.add_argument(
        "--index-records", **number, default=10_000_000, help="opened, default 10000000; 0: leave opening out"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument("--png", type=Path, metavar="FILE", help="also draw them")
    parser.add_argument("--seed", **number, default=0, help="default 0")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    _check(arguments)
    keep_freed_memory()  # as in training: else every other batch pays for fresh pages
    throughput: list[ThroughputRow] = []
    opening: list[OpeningRow] = []
    with tempfile.TemporaryDirectory(prefix="pfc-bench-") as name:
        folder = Path(name)
        reader, source = _records(arguments, folder)
        effort = _effort(arguments, reader)
        reader = _endless(reader, effort)
        throughput += _throughput(arguments.methods, reader, effort, folder)
        _print_throughput(throughput, effort, source)
        _save(arguments, throughput, opening)
        if arguments.index_records:
            opening += _opening(arguments, folder)
            _save(arguments, throughput, opening)
    if arguments.png is not None:
        # Imported where it runs: matplotlib takes a second that every other command would pay.
        from trainer.bench.data_picture import write_picture

        write_picture(arguments.png, throughput, opening, effort)
    return ExitCode.DONE


def _check(arguments: argparse.Namespace) -> None:
    least = {"workers": 0, "index_records": 0, "seed": 0}
    for name in (
        "images", "batch_size", "image_size", "threads", "workers", "prefetch", "batches", "repetitions",
        "index_records", "seed",
    ):  # fmt: skip
        value = getattr(arguments, name)
        if value is not None and value < least.get(name, 1):
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least.get(name, 1)}, got {value}")
    if 0 < arguments.index_records < 10:
        raise ConfigError(f"--index-records {arguments.index_records}: ten files need ten records, or give 0")
    choose_device(arguments.device)
    for path in (arguments.csv, arguments.png):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: no such folder; make it first")


def _records(arguments: argparse.Namespace, folder: Path) -> tuple[RecordReader, str]:
    """The records, and a line about them."""
    if arguments.records is not None:
        reader = RecordReader(arguments.records)
        return reader, f"{len(reader):,} images of {', '.join(map(str, arguments.records))}"
    from data_pipeline.synthetic import synthesize  # slow to import

    synthesize(
        folder / "faces", identities=-(-arguments.images // _EACH), images_per_identity=min(arguments.images, _EACH),
        unseen_identities=2, pairs=20, image_size=arguments.image_size or 112,
        seed=arguments.seed, workers=arguments.workers or 1,
    )  # fmt: skip
    reader = RecordReader(folder / "faces")
    return reader, f"{len(reader):,} images of synthetic faces"


def _endless(reader: RecordReader, effort: DataEffort) -> RecordReader:
    """The same images, listed so often that no epoch ends while it is measured."""
    from trainer.bench.data_bench import batches_needed

    times = -(-batches_needed(effort) * effort.batch_size // len(reader))
    if times == 1:
        return reader
    reader.close()
    return RecordReader(reader.paths * times)


def _effort(arguments: argparse.Namespace, reader: RecordReader) -> DataEffort:
    size = arguments.image_size or (jpeg_size(reader[0].jpeg) or (112, 112))[0]
    return DataEffort(
        arguments.batch_size, size, arguments.device, arguments.threads, arguments.workers, arguments.prefetch,
        arguments.batches, arguments.repetitions, arguments.seed,
    )  # fmt: skip


def _throughput(methods: list[str], reader: RecordReader, effort: DataEffort, folder: Path) -> list[ThroughputRow]:
    from trainer.bench.data_bench import bench_data
    from trainer.bench.data_contestants import Contestants

    def say(number: int) -> None:
        print(f"round {number} of {effort.repetitions}", file=sys.stderr, flush=True)

    return bench_data(Contestants(reader, effort, folder), methods, effort, now=time.perf_counter, after_round=say)


def _opening(arguments: argparse.Namespace, folder: Path) -> list[OpeningRow]:
    from trainer.bench.data_table import format_opening
    from trainer.bench.opening_bench import bench_opening

    rows: list[OpeningRow] = []
    for row in bench_opening(folder, arguments.index_records, max(1, arguments.repetitions // 3), arguments.seed):
        print(f"opened {row.records:,} records in {row.files} files with {row.method}", file=sys.stderr, flush=True)
        rows.append(row)
    print(f"\n{format_opening(rows)}", flush=True)
    return rows


def _print_throughput(rows: list[ThroughputRow], effort: DataEffort, source: str) -> None:
    from trainer.bench.data_table import format_throughput

    print(format_throughput(rows, effort, source), flush=True)


def _save(arguments: argparse.Namespace, throughput: list[ThroughputRow], opening: list[OpeningRow]) -> None:
    from trainer.bench.data_table import write_csv

    if arguments.csv is not None:
        write_csv(arguments.csv, throughput, opening)
