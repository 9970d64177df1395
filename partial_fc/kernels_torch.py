"""The kernels of the head in plain PyTorch: the reference of the compiled ones, and what other devices run.

Shape letters: R rows of the shard, D embedding size, W code width, N global batch, T rows of a tile, P pairs,
S sampled rows, L levels, M own pairs (a sample and its own center), A rows touched.
"""

import math

import torch
from torch import Tensor

from partial_fc.pairs import Pairs, ScoreSums
from partial_fc.row_tables import NO_SLOT, Motion, RowTables
from partial_fc.sface import SFace, angle
from partial_fc.stored_rows import current_rows, inverse_norms, row_chunk, store_rows, stored_rows

LARGEST_CODE = 127
ROUNDING_SLACK = 1e-6  # what float32 sums over a row may be off
MUCH_UNREST = 1e3  # of rows that turn over, or have no direction
SHORTEST_LIFE = 16  # steps that a touched row keeps its momentum: it may be touched again, and letting go costs a visit
OWN_PAIR = -2.0  # stands for the cosine of an own pair in a sample
TILE_PAIRS, TILE_PAIRS_ON_GPU = 2**19, 2**24  # int32 products of a tile: 2 MiB, about a core's cache; 64 MiB
FUSED = False  # whether there is a ``screen_tile``, which takes no products


def gather_unit(tables: RowTables, rows: Tensor | None, start: int, count: int, unit: Tensor, inverse: Tensor) -> None:
    """Write unit rows [count, D] and inverse norms [count] of ``rows``, or of the rows from ``start`` on.

    A row without direction (norm at most ``norm_floor``) gives a zero row and the inverse norm 0.
    """
    weights = current_rows(tables, _range(tables, start, count) if rows is None else rows)
    inverse.copy_(inverse_norms(tables, weights))
    torch.mul(weights, inverse[:, None], out=unit)


def encode_rows(tables: RowTables, start: int, count: int) -> None:
    """int8 codes, scales and slack of ``count`` rows from ``start`` on, as they stand now."""
    chunk = row_chunk(tables.weights)
    for begin in range(start, start + count, chunk):
        rows = _range(tables, begin, min(chunk, start + count - begin))
        weights = current_rows(tables, rows)
        _encode(tables, rows, weights, inverse_norms(tables, weights))


def update_rows(
    tables: RowTables, rows: Tensor, pairs: Pairs | None, offsets: Tensor | None, embeddings: Tensor, motion: Motion
) -> None:
    """One optimizer step of ``rows`` [A]; ``now`` is the step before. Row i has the pairs [offsets[i], offsets[i+1]).

        momentum <- momentum_factor * momentum + gradient        weights <- weights - rate * momentum
        gradient = (sum_p a_p x_p - (sum_p a_p c_p) u) / |weights|   for coefficients a, cosines c, u the unit row

    Without pairs the gradient is 0. A row without a slot takes the step with no momentum. Codes are renewed.
    """
    chunk = row_chunk(rows)
    for begin in range(0, len(rows), chunk):
        part = rows[begin : begin + chunk]
        weights = current_rows(tables, part)
        inverse = inverse_norms(tables, weights)
        gradient = torch.zeros_like(weights)
        if pairs is not None and offsets is not None:
            ends = offsets[begin : begin + len(part) + 1]
            here = pairs.part(int(ends[0]), int(ends[-1]))
            place = torch.repeat_interleave(torch.arange(len(part), device=rows.device), ends.diff())
            for first in range(0, len(here), chunk):
                some = here.part(first, min(first + chunk, len(here)))
                pull = some.coefficients[:, None] * embeddings[some.samples.long()]
                gradient.index_add_(0, place[first : first + chunk], pull)
            radial = torch.zeros_like(inverse).index_add_(0, place, here.coefficients * here.cosines)
            gradient = (gradient - (radial * inverse)[:, None] * weights) * inverse[:, None]
        _move(tables, part, weights, gradient, motion)


def update_dense(tables: RowTables, start: int, sums: Tensor, motion: Motion) -> None:
    """The same for the rows from ``start`` on, from sums [T, D] of coefficient * embedding. Codes are left alone."""
    rows = _range(tables, start, len(sums))
    weights = current_rows(tables, rows)
    inverse = inverse_norms(tables, weights)[:, None]
    radial = (sums * weights).sum(dim=1, keepdim=True) * inverse * inverse
    _move(tables, rows, weights, (sums - radial * weights) * inverse, motion, encode=False)


def settle_rows(tables: RowTables, rows: Tensor, rest: float, motion: Motion) -> None:
    """Bring ``rows`` with momentum to now; with ``rest`` > 0 also add rest * momentum, the movement still to come."""
    chunk = row_chunk(rows)
    for begin in range(0, len(rows), chunk):
        part = rows[begin : begin + chunk]
        part = part[tables.slots[part] != NO_SLOT]
        slots = tables.slots[part].long()
        age = (tables.now - tables.touched[slots]).long()
        held = tables.decay[age]
        momentum = tables.momentum[slots]
        weights = stored_rows(tables, part) - (tables.travel[age] + rest * held)[:, None] * momentum
        momentum = momentum * held[:, None]
        weights = store_rows(tables, part, weights)
        tables.momentum[slots] = momentum
        if rest > 0.0:
            tables.unrest[slots] = 0.0
        _finish(tables, part, weights, None if rest > 0.0 else momentum, tables.now, motion, encode=True)


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


def dense_coefficients(
    cosines: Tensor, own: tuple[Tensor, Tensor], loss: SFace, cut: float, sums: Tensor | None
) -> None:
    """Turn cosines [T, N] into coefficients in place; own pairs (rows within the tile, samples) get minus their pull.

    sums: [7] float64 or None: inter- and intra-class loss, negatives that reach ``cut``, own pairs' pi/2 - theta,
    negatives' pi/2 - theta and its square, own pairs.
    """
    own_cosines = cosines[own]
    coefficients = loss.negative_coefficient(cosines)
    coefficients[own] = 0.0
    pulls = loss.positive_coefficient(own_cosines)
    if sums is not None:
        below = math.pi / 2 - angle(cosines)
        own_angles = below[own].sum(dtype=torch.float64)
        below[own] = 0.0
        sums += torch.stack(
            [
                torch.linalg.vecdot(coefficients, cosines).sum(dtype=torch.float64),
                -(pulls * own_cosines).sum(dtype=torch.float64),
                torch.count_nonzero(coefficients >= cut).double(),
                own_angles,
                below.sum(dim=1).sum(dtype=torch.float64),
                torch.linalg.vector_norm(below, dim=1).double().square().sum(),
                torch.full((), len(pulls), dtype=torch.float64, device=sums.device),
            ]
        )
    cosines.copy_(coefficients)
    cosines[own] = -pulls


def sample_levels(
    cosines: Tensor, inverses: Tensor, sample_inverses: Tensor, loss: SFace, cut: float, levels: Tensor, sums: Tensor
) -> None:
    """What a sample of centers says of all negatives; cosines [S, N] become the coefficients below ``cut``, else 0.

    Entries of -2 are own pairs, left out. levels: [L, 4] float64 takes pairs, coefficients, coefficient^2 sin^2 / |x|^2
    and coefficient^2 sin^2 / |weights|^2 by half octaves of coefficient / scale, borders at 1 and 1.5 times powers
    of two, largest first; the last takes everything smaller. sums: [3] float64, negatives, their pi/2 - theta and its
    square. inverses: [S] of the centers' norms, sample_inverses: [N] of the embeddings'.
    """
    negative = cosines > OWN_PAIR + 0.5
    coefficients = torch.where(negative, loss.negative_coefficient(cosines), 0.0)
    below = torch.where(negative, math.pi / 2 - angle(cosines), 0.0).double()
    sums += torch.stack([negative.sum(), below.sum(), below.square().sum()])
    codes = (coefficients / loss.scale).view(torch.int32) >> 22
    place = (253 - codes).clamp_(0, len(levels) - 1)[negative].long()
    force = coefficients.double() ** 2 * (1.0 - cosines.double() ** 2).clamp_min(0.0)
    columns = (
        torch.ones_like(force),
        coefficients.double(),
        force * sample_inverses.double() ** 2,
        force * inverses.double()[:, None] ** 2,
    )
    for column, values in enumerate(columns):
        levels[:, column] += torch.bincount(place, values[negative], minlength=len(levels))
    cosines.copy_(torch.where(coefficients < cut, coefficients, 0.0))


def gradient_blocks() -> int:
    """Blocks of the ``gradient`` that :func:`score_tile` takes."""
    return 1


def tile_rows(padded: int, device: torch.device) -> int:
    """T: rows that :func:`score_tile` takes at a time."""
    return max(64, (TILE_PAIRS if device.type == "cpu" else TILE_PAIRS_ON_GPU) // padded)


def _range(tables: RowTables, start: int, count: int) -> Tensor:
    return torch.arange(start, start + count, device=tables.weights.device)


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


def _move(
    tables: RowTables, rows: Tensor, weights: Tensor, gradient: Tensor, motion: Motion, *, encode: bool = True
) -> None:
    """The step itself on current ``weights`` [A, D] of ``rows``."""
    slots = tables.slots[rows].long()
    live = slots != NO_SLOT
    held = slots[live]
    after = gradient
    after[live] += (motion.momentum_factor * tables.decay[(tables.now - tables.touched[held]).long()])[
        :, None
    ] * tables.momentum[held]
    weights = store_rows(tables, rows, weights - motion.rate * after)
    tables.momentum[held] = after[live]
    _finish(tables, rows[live], weights[live], after[live], tables.now + 1, motion, encode=encode)
    _finish(tables, rows[~live], weights[~live], None, tables.now + 1, motion, encode=encode)


def _finish(
    tables: RowTables, rows: Tensor, weights: Tensor, momentum: Tensor | None, now: int, motion: Motion, *, encode: bool
) -> None:
    """Note when moved rows were touched and how long their momentum matters, and renew their codes."""
    inverse = inverse_norms(tables, weights)
    if momentum is not None and len(rows):
        slots = tables.slots[rows].long()
        speed = momentum.norm(dim=1) * inverse
        unrest = (motion.reach * speed * 1.0001).clamp_max(MUCH_UNREST)
        left = motion.patient_reach * speed
        steps = torch.ceil(torch.log(motion.rounding / left) / math.log(motion.momentum_factor))
        steps = torch.where(left > motion.rounding, steps, 0.0).clamp_min(SHORTEST_LIFE).clamp_max(motion.longest)
        tables.touched[slots] = now
        tables.expiry[slots] = now + steps.int()
        tables.unrest[slots] = torch.where(inverse > 0.0, unrest, MUCH_UNREST)
    if encode and tables.codes is not None:
        _encode(tables, rows, weights, inverse)


def _encode(tables: RowTables, rows: Tensor, weights: Tensor, inverse: Tensor) -> None:
    assert tables.codes is not None, "there are codes to renew"
    if not len(rows):
        return
    unit = weights * inverse[:, None]
    scales = unit.abs().amax(dim=1) / LARGEST_CODE
    codes = torch.where(scales[:, None] > 0.0, unit / scales[:, None], 0.0).round()
    residual = (unit - scales[:, None] * codes).norm(dim=1)
    tables.codes[rows, : weights.shape[1]] = codes.to(torch.int8)
    tables.scales[rows] = scales
    drift = torch.zeros_like(residual)
    slots = tables.slots[rows].long()
    live = slots != NO_SLOT
    unrest = tables.unrest[slots[live]]
    drift[live] = torch.where(unrest <= tables.calm, unrest, 0.0)
    tables.slack[rows] = residual * 1.00001 + ROUNDING_SLACK + drift
