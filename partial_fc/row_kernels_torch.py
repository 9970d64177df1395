"""What happens to whole rows, in plain PyTorch: read as unit rows, coded, moved by the optimizer.

Shape letters: R rows of the shard, D embedding size, W code width, T rows of a tile, P pairs, A rows touched.
"""

import math

import torch
from torch import Tensor

from partial_fc.pairs import Pairs
from partial_fc.row_tables import NO_SLOT, Motion, RowTables
from partial_fc.stored_rows import current_rows, inverse_norms, row_chunk, store_rows, stored_rows

LARGEST_CODE = 127
ROUNDING_SLACK = 1e-6  # what float32 sums over a row may be off
MUCH_UNREST = 1e3  # of rows that turn over, or have no direction
SHORTEST_LIFE = 16  # steps that a touched row keeps its momentum: it may be touched again, and letting go costs a visit


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


def _range(tables: RowTables, start: int, count: int) -> Tensor:
    return torch.arange(start, start + count, device=tables.weights.device)
