"""Screening in plain PyTorch: which pairs of a tile may matter, their scores, and what stays of them.

Shape letters: R rows of the shard, D embedding size, N global batch, T rows of a tile, P pairs, C candidates, M own
pairs (a sample and its own center).
"""

import math

import torch
from torch import Tensor

from partial_fc.pairs import Pairs, ScoreSums
from partial_fc.row_tables import RowTables
from partial_fc.sface import SFace, angle
from partial_fc.stored_rows import current_rows, inverse_norms, row_chunk

TILE_PAIRS, TILE_PAIRS_ON_GPU = 2**19, 2**24  # int32 products of a tile: 2 MiB, about a core's cache; 64 MiB


def score_tile(
    tables: RowTables,
    start: int,
    dots: Tensor,
    scales: Tensor,
    residuals: Tensor,
    embeddings: Tensor,
    own: tuple[Tensor, Tensor],
    loss: SFace,
    lowest: float,
    cut: float,
    kept: Pairs,
    gradient: Tensor | None,
    sums: ScoreSums,
) -> int:
    """Screen a tile of rows from ``start`` on by its int8 products, score what is left, keep what reaches the cut.

    dots: [T, N] int32, codes times coded samples, whose scales and residual norms are [N]. A pair's cosine is at most
    dot * scale_j * scale_i + (1 + slack_j) * residual_i + slack_j (Cauchy-Schwarz on the residuals): when that
    reaches ``lowest`` it is scored in float32. Negatives whose coefficient reaches ``cut`` are kept, and all own pairs
    (rows and samples, both [M], sorted by row), with minus their pull. ``kept`` has room for T * N pairs; the number
    written, sorted by row, is returned. gradient: [blocks, N, D] takes coefficient * unit row.
    """
    count = len(dots)
    candidates = _candidates(tables, start, dots, scales, residuals, lowest)
    here = (own[0] >= start) & (own[0] < start + count)
    own_rows, own_samples = own[0][here] - start, own[1][here]
    candidates[own_rows, own_samples] = False
    rows, samples = candidates.nonzero().T
    cosines = _cosines(tables, rows + start, samples, embeddings)
    coefficients = loss.negative_coefficient(cosines)
    keep = coefficients >= cut
    exact = exact_cosines(tables, own_rows + start, own_samples, embeddings)
    own_cosines = exact.float()
    pulls = loss.positive_coefficient(exact).float()
    found = Pairs(
        torch.cat([rows[keep], own_rows]) + start,
        torch.cat([samples[keep], own_samples]).int(),
        torch.cat([coefficients[keep], -pulls]),
        torch.cat([cosines[keep], own_cosines]),
    )
    order = torch.argsort(found.rows, stable=True)
    found = Pairs(found.rows[order], found.samples[order], found.coefficients[order], found.cosines[order])
    kept.copy_(0, found)
    touched, place = torch.unique_consecutive(found.rows, return_inverse=True)
    weights = current_rows(tables, touched)
    inverse = inverse_norms(tables, weights)
    if gradient is not None:
        chunk = row_chunk(rows)
        for first in range(0, len(found), chunk):
            some = found.part(first, min(first + chunk, len(found)))
            at = place[first : first + chunk]
            pull = (some.coefficients * inverse[at])[:, None] * weights[at]
            gradient[0].index_add_(0, some.samples.long(), pull)
    force = found.coefficients.double() ** 2 * (1.0 - found.cosines.double() ** 2).clamp_min(0.0)
    force *= inverse.double()[place] ** 2
    negative = found.coefficients >= 0.0
    values = sums.values
    values[sums.INTER] += (coefficients[keep].double() * cosines[keep]).sum()
    values[sums.INTRA] -= (pulls.double() * own_cosines).sum()
    values[sums.KEPT] += int(keep.sum())
    values[sums.SCORED] += len(rows)
    values[sums.OWN_ANGLES] += (math.pi / 2 - angle(own_cosines).double()).sum()
    values[sums.OWN_PAIRS] += len(own_rows)
    values[sums.NEGATIVE_FORCE] += force[negative].sum()
    values[sums.OWN_FORCE] += force[~negative].sum()
    return len(found)


def candidate_rows(
    tables: RowTables, start: int, dots: Tensor, scales: Tensor, residuals: Tensor, lowest: float
) -> Tensor:
    """[C] int64, sorted: rows of the tile that :func:`score_tile` scores a pair of, own pairs left aside."""
    return _candidates(tables, start, dots, scales, residuals, lowest).any(dim=1).nonzero().squeeze(1) + start


def _candidates(
    tables: RowTables, start: int, dots: Tensor, scales: Tensor, residuals: Tensor, lowest: float
) -> Tensor:
    """[T, N] bool."""
    slack = tables.slack[start : start + len(dots), None]
    bound = dots * scales * tables.scales[start : start + len(dots), None] + residuals * (1.0 + slack)
    return bound >= lowest - slack


def _cosines(tables: RowTables, rows: Tensor, samples: Tensor, embeddings: Tensor) -> Tensor:
    """[P] for pairs of rows and samples."""
    cosines = embeddings.new_empty(len(rows))
    chunk = row_chunk(rows)
    for first in range(0, len(rows), chunk):
        weights = current_rows(tables, rows[first : first + chunk])
        unit = weights * inverse_norms(tables, weights)[:, None]
        cosines[first : first + chunk] = torch.linalg.vecdot(unit, embeddings[samples[first : first + chunk]])
    return cosines


def exact_cosines(tables: RowTables, rows: Tensor, samples: Tensor, embeddings: Tensor) -> Tensor:
    """[P] in float64: pulls of own pairs are most of a gradient, and steep in the angle."""
    weights, x = current_rows(tables, rows).double(), embeddings[samples].double()
    norms = weights.norm(dim=1) * x.norm(dim=1)
    return torch.where(norms > tables.norm_floor, torch.linalg.vecdot(weights, x) / norms, 0.0)


def fixed(tables: RowTables) -> RowTables:
    """``tables`` as :func:`score_tile` takes them in, made once for many calls: no array of theirs may be replaced."""
    return tables


def gradient_blocks() -> int:
    """Blocks of the ``gradient`` that :func:`score_tile` takes."""
    return 1


def tile_rows(padded: int, device: torch.device) -> int:
    """T: rows that :func:`score_tile` takes at a time."""
    return max(64, (TILE_PAIRS if device.type == "cpu" else TILE_PAIRS_ON_GPU) // padded)
