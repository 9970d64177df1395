"""``pfc bench eval``: embeddings against the bare backbone, searching against the bare float32 product."""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from data_pipeline import RecordReader
from trainer.backbones import BACKBONE_NAMES, BackboneConfig, build_backbone
from trainer.bench.eval_problem import COMPARISON, EXTRACTION, METHODS, EvalEffort, EvalRow
from trainer.errors import ConfigError, ExitCode
from trainer.memory import keep_freed_memory
from trainer.world import choose_device

DESCRIPTION = """\
One table from one run, on one rank. Extraction: from the records to unit embeddings with flip test, in turn with the
bare backbone on the same images in memory. Comparison: the K best gallery rows of each probe, in tiles, in turn with
the bare float32 product of the same size."""

_EACH = 25  # synthetic images of one identity


def add_parser(kinds: Any) -> None:
    """Add ``bench eval`` to the command line."""
    parser = kinds.add_parser(
        "eval", help="embedding against the bare backbone, search against the bare product", description=DESCRIPTION
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    number: dict[str, Any] = {"type": int, "metavar": "N"}
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="M", help="extraction, comparison"
    )
    parser.add_argument("--records", type=Path, metavar="PATH", help=".rec; default: synthetic faces, drawn for it")
    parser.add_argument("--backbone", choices=BACKBONE_NAMES, default="mobilefacenet", help="default mobilefacenet")
    parser.add_argument("--image-size", **number, default=112, help="default 112")
    parser.add_argument("--embedding-dim", **number, default=512, help="default 512")
    parser.add_argument("--batch-size", **number, default=64, help="default 64")
    parser.add_argument("--images", **number, default=512, help="embedded in a round, default 512")
    parser.add_argument("--decoder", choices=("dali", "cpu"), default="dali", help="default dali")
    parser.add_argument("--threads", **number, default=cores, help=f"of decoding and arithmetic, default {cores}")
    parser.add_argument("--probes", **number, default=1024, help="default 1024")
    parser.add_argument("--gallery", **number, default=1_000_000, help="default 1000000")
    parser.add_argument("-k", **number, default=20, help="candidates kept, default 20")
    parser.add_argument("--repetitions", **number, default=5, help="rounds, default 5")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument("--seed", **number, default=0, help="default 0")
    parser.set_defaults(handler=_run)


def _run(arguments: argparse.Namespace) -> ExitCode:
    _check(arguments)
    # Imported where they run: their imports take a second that every other command would pay.
    from trainer.bench.eval_bench import bench_comparison, memory_needed
    from trainer.bench.eval_table import format_rows, write_csv

    keep_freed_memory()  # as in training: else every other batch pays for fresh pages
    try:
        device = choose_device(arguments.device, local_rank=0, setting="--device")
    except ConfigError as error:
        raise ConfigError(str(error).replace("run.device", "--device")) from None
    effort = EvalEffort(
        arguments.backbone, arguments.image_size, arguments.embedding_dim, arguments.batch_size, arguments.images,
        arguments.decoder, arguments.threads, arguments.probes, arguments.gallery, arguments.k, arguments.repetitions,
        arguments.seed,
    )  # fmt: skip
    torch.set_num_threads(effort.threads)
    rows: list[EvalRow] = []
    if EXTRACTION in arguments.methods:
        rows.append(_extraction(arguments, effort, device))
    if COMPARISON in arguments.methods:
        _check_memory(memory_needed(effort))
        rows.append(bench_comparison(effort, device))
    print(format_rows(rows, effort))
    if arguments.csv is not None:
        write_csv(arguments.csv, rows, effort)
    return ExitCode.DONE


def _extraction(arguments: argparse.Namespace, effort: EvalEffort, device: torch.device) -> EvalRow:
    from trainer.bench.eval_bench import bench_extraction, random_module
    from trainer.evaluation.embed import decode_images
    from trainer.evaluation.image_sources import Decoding

    with tempfile.TemporaryDirectory(prefix="pfc-bench-") as folder:
        path = arguments.records or _drawn(Path(folder), effort)
        with RecordReader(path) as reader:
            torch.manual_seed(effort.seed)
            config = BackboneConfig.model_validate({"name": effort.backbone, "embedding_dim": effort.embedding_dim})
            module = build_backbone(config, image_size=effort.image_size)
            some = [reader[place].jpeg for place in range(min(64, len(reader)))]
            module = random_module(module, decode_images(some, effort.image_size, name="bench"))
            how = Decoding(
                image_size=effort.image_size, device=device, decoder=arguments.decoder, threads=effort.threads
            )
            return bench_extraction(module.to(device), reader, effort, how)


def _drawn(folder: Path, effort: EvalEffort) -> Path:
    from data_pipeline.synthetic import synthesize  # slow to import

    synthesize(
        folder / "faces", identities=-(-effort.images // _EACH), images_per_identity=min(effort.images, _EACH),
        unseen_identities=2, pairs=20, image_size=effort.image_size, seed=effort.seed, workers=effort.threads,
    )  # fmt: skip
    return folder / "faces"


def _check(arguments: argparse.Namespace) -> None:
    for name in (
        "image_size", "embedding_dim", "batch_size", "images", "threads", "probes", "gallery", "k", "repetitions",
    ):  # fmt: skip
        value = getattr(arguments, name)
        if value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if arguments.seed < 0:
        raise ConfigError(f"--seed must be at least 0, got {arguments.seed}")
    if arguments.csv is not None and not arguments.csv.absolute().parent.is_dir():
        raise ConfigError(f"{arguments.csv}: no such folder; make it first")


def _check_memory(needed: int) -> None:
    from trainer.available_memory import available_bytes

    there = available_bytes()
    if there is not None and needed > 0.9 * there:
        raise ConfigError(
            f"--gallery: needs {needed / 2**30:.1f} GiB, {there / 2**30:.1f} GiB are free: take fewer rows"
        )
