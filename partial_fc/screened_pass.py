"""SFace with only the pairs that matter: an int8 product with a rigorous bound finds them, float32 scores them.

With unit rows u = scale*code + residual on both sides and their residual norms bounded by r_j (centers) and r_i,
|u_j . u_i - scale_j scale_i code_j . code_i| <= (1 + r_j) r_i + r_j, by Cauchy-Schwarz: no pair is missed.
Shape letters: N global batch, M the batch padded, T rows of a tile, W code width, D embedding size.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from partial_fc.center_rows import CenterRows
from partial_fc.coded_batch import CodedBatch
from partial_fc.drop_sample import level_cut
from partial_fc.full_batch import FullBatch
from partial_fc.full_gradient import FullGradient, PairPart
from partial_fc.pairs import PairBuffer, Pairs, ScoreSums
from partial_fc.scored_step import Estimate, ScoredStep
from partial_fc.sface import SFace

if TYPE_CHECKING:
    from partial_fc.head import PartialFC

Fetch = Callable[[Tensor], None]
FEWEST_ON_CUDA = 32  # rows that the int8 product asks for there
MOST_TILE = 65536  # rows of centers in host memory that find room on the device at a time
COSINE_ROUNDING = 2e-6  # of float32 cosines near the cut


def screened_pass(
    head: "PartialFC",
    rows: CenterRows,
    batch: FullBatch,
    loss: SFace,
    level: int,
    estimate: Estimate,
    *,
    with_gradient: bool,
) -> ScoredStep:
    """Loss, embedding gradient and pairs of all negatives whose coefficient reaches the cut of ``level``."""
    rows.encode()
    head.keeper.release()
    tables, kernels, workspace = rows.tables, rows.kernels, head.workspace
    assert tables.codes is not None, "just encoded"
    count, dim = batch.unit.shape
    coded = CodedBatch.of(batch.unit, tables.code_width)
    padded = len(coded.scales)
    cut = level_cut(level, loss.scale)
    lowest = lowest_cosine(loss, cut) - COSINE_ROUNDING
    gradient = None
    if with_gradient:
        gradient = workspace.take("block gradients", kernels.gradient_blocks(), padded, dim).zero_()
    tile = kernels.tile_rows(padded, batch.unit.device)
    if rows.staged is not None and not kernels.FUSED:
        tile = min(tile, MOST_TILE)
    held = None if kernels.FUSED else kernels.fixed(tables)
    found = PairBuffer(workspace)
    sums = ScoreSums(batch.unit.device)

    def screen(first: int, many: int, fetch: Fetch | None) -> Pairs:
        return kernels.screen_tile(  # type: ignore[no-any-return]  # of a module
            tables, first, many, coded, batch.unit, batch.own, loss, lowest, cut, gradient, sums, fetch
        )

    for start in range(0, len(rows), tile):
        size = min(tile, len(rows) - start)
        if kernels.FUSED:
            for pairs in _screened(screen, rows.fetch, start, size):
                found.add(pairs)
            continue
        dots = workspace.take("dots", size, padded, dtype=torch.int32)
        int8_product(tables.codes[start : start + size], coded.codes, dots)
        if rows.fetch is not None:
            near = kernels.candidate_rows(tables, start, dots, coded.scales, coded.residuals, lowest)
            own = batch.own_in(start, size)[0] + start
            rows.fetch(torch.unique(torch.cat([near, own])))
            held = kernels.fixed(tables)
        kept = kernels.score_tile(
            held,
            start,
            dots,
            coded.scales,
            coded.residuals,
            batch.unit,
            batch.own,
            loss,
            lowest,
            cut,
            found.room(size * padded),
            gradient,
            sums,
        )
        if with_gradient:
            found.keep(kept)
    pairs = found.taken()
    pairs.coefficients.div_(count)
    values = sums.values
    moments = torch.zeros(6, dtype=torch.float64, device=values.device)
    moments[0], moments[1], moments[5] = values[sums.OWN_ANGLES], values[sums.OWN_PAIRS], values[sums.KEPT]
    return ScoredStep(
        values[sums.INTRA] / count,
        values[sums.INTER] / count,
        torch.zeros_like(batch.unit) if gradient is None else gradient.sum(dim=0)[:count].div_(count),
        FullGradient([PairPart(pairs, batch.unit)], rows, workspace, head.tile_classes),
        moments,
        (values[sums.NEGATIVE_FORCE] + values[sums.OWN_FORCE]) / rows.shared.scale**2,
        cut=cut,
        mode="screened",
        estimate=estimate,
    )


def _screened(
    screen: Callable[[int, int, Fetch | None], Pairs], fetch: Fetch | None, start: int, size: int
) -> Iterator[Pairs]:
    """Pairs of ``size`` rows from ``start`` on: at once, or half by half where the rows that are scored would find no
    room on the device. fetch: brings rows from host memory; None where all are on the device.
    """

    def bring(needed: Tensor) -> None:
        if len(needed) > MOST_TILE and size > MOST_TILE:
            raise _NoRoomError
        if fetch is not None:
            fetch(needed)

    try:
        pairs = screen(start, size, None if fetch is None else bring)
    except _NoRoomError:
        half = size // 2
        yield from _screened(screen, fetch, start, half)
        yield from _screened(screen, fetch, start + half, size - half)
    else:
        yield pairs


class _NoRoomError(Exception):
    """Nothing of a tile has been added up yet."""


def int8_product(centers: Tensor, samples: Tensor, out: Tensor) -> None:
    """[T, W] int8 times [W, M] int8 into [T, M] int32; centers first: the orientation that is fast."""
    if centers.is_cuda and len(centers) < FEWEST_ON_CUDA:
        padded = centers.new_zeros(FEWEST_ON_CUDA, centers.shape[1])
        padded[: len(centers)] = centers
        out.copy_(torch._int_mm(padded, samples)[: len(centers)])
    else:
        torch._int_mm(centers, samples, out=out)


def lowest_cosine(loss: SFace, cut: float) -> float:
    """The cosine at which a negative's coefficient is ``cut``: theta = b - logit(cut/s)/k; -1 where all pairs reach."""
    share = cut / loss.scale
    if share >= 1.0:
        return 1.0
    theta = loss.b - math.log(share / (1.0 - share)) / loss.slope
    return math.cos(min(max(theta, 0.0), math.pi))
