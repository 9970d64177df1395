"""Triton programs over tiles of centers: each reads what it needs once and writes once.

What they compute is stated by :mod:`partial_fc.tile_kernels_torch`, their reference.
"""

import triton
import triton.language as tl

from partial_fc.triton_rounding import store_numbers
from partial_fc.triton_rows import inverse_norm

LEAST = tl.constexpr(-1e30)  # finite: what is left out stands at -inf, and -inf - -inf is not a number


@triton.jit(do_not_specialize=["start"])
def unit_program(table, rows, start, norm_floor, unit, inverses, dim, BLOCK: tl.constexpr):
    """Unit row and inverse norm of one row."""
    place = tl.program_id(0).to(tl.int64)
    row = start + place if rows is None else tl.load(rows + place)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    values = tl.load(table + row * dim + columns, mask=inside, other=0.0).to(tl.float32)
    inverse = inverse_norm(values, norm_floor)
    tl.store(inverses + place, inverse)
    tl.store(unit + place * dim + columns, values * inverse, mask=inside)


@triton.jit(do_not_specialize=["count"])
def exponentials_program(
    cosines, count, batch, scale, maxima, sums,
    LOOPS: tl.constexpr, ROWS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Per sample, of LOOPS * ROWS rows: the largest logit and the sum of exp(logit - it), both [programs, N]."""
    columns = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)
    wanted = columns < batch
    largest = tl.full([SAMPLES], LEAST, dtype=tl.float32)
    total = tl.zeros([SAMPLES], dtype=tl.float32)
    for turn in range(LOOPS):
        rows = (tl.program_id(0) * LOOPS + turn) * ROWS + tl.arange(0, ROWS)
        there = (rows < count)[:, None] & wanted[None, :]
        places = cosines + rows.to(tl.int64)[:, None] * batch + columns[None, :]
        logits = scale * tl.load(places, mask=there, other=float("-inf"))
        higher = tl.maximum(largest, tl.max(logits, axis=0))
        total = total * tl.exp(largest - higher) + tl.sum(tl.exp(logits - higher[None, :]), axis=0)
        largest = higher
    here = tl.program_id(0) * batch + columns
    tl.store(maxima + here, largest, mask=wanted)
    tl.store(sums + here, total, mask=wanted)


@triton.jit(do_not_specialize=["count"])
def coefficients_program(
    cosines, count, batch, scale, offsets, cut, active, ROWS: tl.constexpr, SAMPLES: tl.constexpr
):  # fmt: skip
    """Turn cosines into exp(scale * c + offset) in place; active: [programs] int32, how many reach ``cut``."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)
    there = (rows < count)[:, None] & (columns < batch)[None, :]
    places = cosines + rows.to(tl.int64)[:, None] * batch + columns[None, :]
    offset = tl.load(offsets + columns, mask=columns < batch, other=0.0)
    values = tl.exp(scale * tl.load(places, mask=there, other=float("-inf")) + offset[None, :])
    tl.store(places, values, mask=there)
    reached = (there & (values >= cut)).to(tl.int32)
    tl.store(active + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.sum(tl.sum(reached, axis=1), axis=0))


@triton.jit
def through_program(gradients, unit, inverses, dim, BLOCK: tl.constexpr):
    """The gradient of one row from that of its unit row, in place."""
    place = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    here = place * dim + columns
    gradient = tl.load(gradients + here, mask=inside, other=0.0)
    direction = tl.load(unit + here, mask=inside, other=0.0)
    radial = tl.sum(gradient * direction, axis=0)
    tl.store(gradients + here, (gradient - radial * direction) * tl.load(inverses + place), mask=inside)


@triton.jit(do_not_specialize=["start", "key_low", "key_high", "first_class"])
def sgd_program(
    weights, momentum, rows, classes, start, gradients, rate, momentum_factor, weight_decay, key_low, key_high,
    first_class, dim, BLOCK: tl.constexpr,
):  # fmt: skip
    """torch.optim.SGD on one row."""
    place = tl.program_id(0).to(tl.int64)
    row = start + place if rows is None else tl.load(rows + place)
    number = first_class + row if classes is None else tl.load(classes + place)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    at = weights + row * dim + columns
    held = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    direction = tl.load(gradients + place * dim + columns, mask=inside, other=0.0) + weight_decay * held
    if momentum is not None:
        direction += momentum_factor * tl.load(momentum + row * dim + columns, mask=inside, other=0.0)
        tl.store(momentum + row * dim + columns, direction, mask=inside)
    store_numbers(at, held - rate * direction, columns, inside, number, key_low, key_high)
