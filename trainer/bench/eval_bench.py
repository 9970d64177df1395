"""Embedding and comparing, as evaluation does them, in turn with nothing but their arithmetic.

Shapes: B images of a batch, S image side, D embedding size, P probes, G gallery rows.
"""

import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from data_pipeline import RecordReader
from trainer.bench.bare_product import BareProduct
from trainer.bench.eval_problem import COMPARISON, EXTRACTION, EvalEffort, EvalRow
from trainer.bench.seconds import Seconds, both_clocks
from trainer.bench.summary import quartiles
from trainer.evaluation.embed import evaluation_mode
from trainer.evaluation.extraction import Extractor
from trainer.evaluation.image_sources import Decoding, RecordImages
from trainer.evaluation.row_blocks import row_blocks
from trainer.evaluation.search import search
from trainer.evaluation.sharded_rows import ShardedRows
from trainer.world import World


def bench_extraction(module: nn.Module, reader: RecordReader, effort: EvalEffort, how: Decoding) -> EvalRow:
    """``Extractor.rows`` from the records to unit embeddings, against f(x) + f(flip x) of images in memory."""
    world = World(0, 1, 0, how.device)
    extractor = Extractor(module, how, batch_size=effort.batch_size, world=world)
    source = RecordImages(reader)
    positions = np.arange(effort.images) % len(reader)
    batches = np.split(positions, range(effort.batch_size, len(positions), effort.batch_size))
    images = [batch.clone() for batch in source.batches(batches, how)]

    def ours() -> None:
        extractor.rows(source, positions, "bench")

    def bare() -> None:
        with evaluation_mode(module), torch.inference_mode():
            for batch in images:
                module(batch) + module(batch.flip(3))
        _settle(how.device)

    return _in_turn(EXTRACTION, "images", effort.images, ours, bare, effort.repetitions)


def bench_comparison(effort: EvalEffort, device: torch.device) -> EvalRow:
    """``search`` for the K best of G gallery rows of each of P probes, against the bare product of the same size."""
    world = World(0, 1, 0, device)
    generator = torch.Generator().manual_seed(effort.seed)

    def rows(count: int) -> ShardedRows:
        values = torch.empty(count, effort.embedding_dim)
        for part in torch.split(values, 1 << 16):  # no second copy of a million rows
            part.normal_(generator=generator)
            nn.functional.normalize(part, out=part)
        return ShardedRows(row_blocks(count, 1), values, world)

    probes, gallery = rows(effort.probes), rows(effort.gallery)
    product = BareProduct(gallery.local.to(device), effort.probes)

    def bare() -> None:
        product()
        _settle(device)

    def ours() -> None:
        search(probes, gallery, effort.k, device=device)

    return _in_turn(COMPARISON, "comparisons", effort.probes * effort.gallery, ours, bare, effort.repetitions)


def _in_turn(
    method: str, unit: str, count: int, ours: Callable[[], None], bare: Callable[[], None], repetitions: int
) -> EvalRow:
    ours()  # allocates, builds decoders
    bare()
    timed: list[tuple[Seconds, Seconds]] = [(_time(bare), _time(ours)) for _ in range(repetitions)]
    q1, ratio, q3 = quartiles([mine.wall / its.wall for its, mine in timed])
    cpu_q1, cpu_ratio, cpu_q3 = quartiles([mine.cpu / max(its.cpu, 1e-9) for its, mine in timed])
    return EvalRow(
        method, unit, count / statistics.median(mine.wall for _, mine in timed),
        count / statistics.median(its.wall for its, _ in timed), ratio, q1, q3, cpu_ratio, cpu_q1, cpu_q3, repetitions,
    )  # fmt: skip


def _time(action: Callable[[], None]) -> Seconds:
    began = both_clocks()
    action()
    return both_clocks() - began


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_needed(effort: EvalEffort) -> int:
    """Bytes that the comparison holds: the rows, and the bare product's output."""
    return 4 * effort.embedding_dim * (effort.gallery + effort.probes) + min(
        4 * effort.gallery * effort.probes, 2 << 30
    )


def random_module(module: nn.Module, sample: Tensor) -> nn.Module:
    """``module`` with the statistics of batch norm set to those of some images, so that no activation overflows."""
    from trainer.evaluation.untrained import calibrate_batch_norm

    calibrate_batch_norm(module, sample, batch_size=16, device=torch.device("cpu"))
    return module
