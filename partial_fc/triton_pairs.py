"""Triton programs over pairs of a center and a sample: screen, score, add up gradients, dense coefficients.

What they compute is stated by :mod:`partial_fc.kernels_torch`, their reference. No [T, N] matrix of products is
written: a block of them lives in registers until the bound has spoken.
"""

import math

import triton
import triton.language as tl

from partial_fc import kernels_torch
from partial_fc.triton_rows import inverse_norm, row_now

RIGHT_ANGLE = tl.constexpr(math.pi / 2)
STRAIGHT_ANGLE = tl.constexpr(math.pi)
NOT_OWN = tl.constexpr(kernels_torch.OWN_PAIR + 0.5)


@triton.jit(do_not_specialize=["count"])
def screen_program(
    codes, samples, scales, slack, sample_scales, residuals, own_rows, lowest, start, count, width,
    found, total, capacity,
    PADDED: tl.constexpr, ROWS: tl.constexpr, SAMPLES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Keys row * PADDED + sample of pairs whose bound reaches ``lowest``, and of own pairs, in any order.

    samples: [PADDED, W] int8. own_rows: [PADDED] int32, own row of each sample, or -1. ``total`` counts all keys,
    also those for which ``found`` has no room.
    """
    blocks: tl.constexpr = (PADDED + SAMPLES - 1) // SAMPLES
    block = tl.program_id(0)
    tile_rows = (block // blocks) * ROWS + tl.arange(0, ROWS)
    columns = (block % blocks) * SAMPLES + tl.arange(0, SAMPLES)
    rows = start + tile_rows.to(tl.int64)
    there, wanted = tile_rows < count, columns < PADDED
    depth = tl.arange(0, DEPTH)
    dots = tl.zeros([ROWS, SAMPLES], dtype=tl.int32)
    for first in range(0, width, DEPTH):
        inside = first + depth < width
        left = tl.load(
            codes + rows[:, None] * width + (first + depth)[None, :], mask=there[:, None] & inside[None, :], other=0
        )
        right = tl.load(
            samples + columns[None, :] * width + (first + depth)[:, None],
            mask=wanted[None, :] & inside[:, None],
            other=0,
        )
        dots = tl.dot(left, right, dots, out_dtype=tl.int32)
    scale = tl.load(scales + rows, mask=there, other=0.0)
    loose = tl.load(slack + rows, mask=there, other=0.0)
    sample_scale = tl.load(sample_scales + columns, mask=wanted, other=0.0)
    residual = tl.load(residuals + columns, mask=wanted, other=-4.0)
    own_row = tl.load(own_rows + columns, mask=wanted, other=-1)
    bound = dots.to(tl.float32) * sample_scale[None, :] * scale[:, None] + residual[None, :] * (1.0 + loose)[:, None]
    near = bound >= (lowest - loose)[:, None]
    near = near | (rows[:, None] == own_row[None, :])
    near = near & there[:, None] & wanted[None, :]
    ones = near.to(tl.int32)
    per_row = tl.sum(ones, axis=1)
    many = tl.sum(per_row, axis=0)
    if many > 0:
        begin = tl.atomic_add(total, many)
        places = begin + (tl.cumsum(per_row, axis=0) - per_row)[:, None] + tl.cumsum(ones, axis=1) - ones
        keys = tile_rows[:, None] * PADDED + columns[None, :]
        tl.store(found + places, keys, mask=near & (places < capacity))


@triton.jit(do_not_specialize=["now", "start"])
def score_program(
    weights, places, slots, momentum, touched, travel, now, norm_floor, keys, start, embeddings, cosines, inverses, dim,
    PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Cosine of each pair of ``keys``, and the inverse norm of its center."""
    place = tl.program_id(0).to(tl.int64)
    key = tl.load(keys + place)
    row, sample = start + (key // PADDED).to(tl.int64), (key % PADDED).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    x = tl.load(embeddings + sample * dim + columns, mask=inside, other=0.0)
    values, _, _, _ = row_now(weights, places, slots, momentum, touched, travel, now, row, columns, inside, dim)
    inverse = inverse_norm(values, norm_floor)
    tl.store(inverses + place, inverse)
    tl.store(cosines + place, tl.sum(values * x, axis=0) * inverse)


@triton.jit(do_not_specialize=["now"])
def pull_program(
    weights, places, slots, momentum, touched, travel, now, rows, factors, offsets, gradient, padded, dim,
    SHARES: tl.constexpr, AT_ONCE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Add factor * row over a sample's pairs [offsets[i], offsets[i + 1]), in shares, to gradient [SHARES, M, D]."""
    sample, share = tl.program_id(0), tl.program_id(1)
    first, last = tl.load(offsets + sample), tl.load(offsets + sample + 1)
    size = (last - first + SHARES - 1) // SHARES
    begin = first + share * size
    end = tl.minimum(begin + size, last)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    pull = tl.zeros([BLOCK], dtype=tl.float32)
    for at in range(begin, end, AT_ONCE):
        pairs = at + tl.arange(0, AT_ONCE)
        there = pairs < end
        row = tl.load(rows + pairs, mask=there, other=0)
        factor = tl.load(factors + pairs, mask=there, other=0.0)
        slot = tl.load(slots + row, mask=there, other=-1)
        live = slot >= 0
        held = tl.where(live, slot, 0).to(tl.int64)
        age = now - tl.load(touched + held, mask=live, other=now)
        far = tl.load(travel + age, mask=live, other=0.0)
        at = row if places is None else tl.load(places + row, mask=there, other=0).to(tl.int64)
        values = tl.load(
            weights + at[:, None] * dim + columns[None, :], mask=there[:, None] & inside[None, :], other=0.0
        ).to(tl.float32)
        motion = tl.load(
            momentum + held[:, None] * dim + columns[None, :], mask=live[:, None] & inside[None, :], other=0.0
        )
        pull += tl.sum(factor[:, None] * (values - far[:, None] * motion), axis=0)
    here = gradient + (share.to(tl.int64) * padded + sample) * dim + columns
    tl.store(here, tl.load(here, mask=inside, other=0.0) + pull, mask=inside)


@triton.jit
def angle(cosine):
    """arccos, to 2e-8 (Abramowitz and Stegun, 4.4.46)."""
    c = tl.minimum(tl.abs(cosine), 1.0)
    series = -0.0012624911 * c + 0.0066700901
    series = series * c - 0.0170881256
    series = series * c + 0.0308918810
    series = series * c - 0.0501743046
    series = series * c + 0.0889789874
    series = series * c - 0.2145988016
    series = series * c + 1.5707963050
    acute = tl.sqrt(1.0 - c) * series
    return tl.where(cosine < 0.0, STRAIGHT_ANGLE - acute, acute)


@triton.jit(do_not_specialize=["count"])
def dense_program(
    cosines, own_rows, count, batch, loss_scale, slope, a, b, cut, sums,
    MEASURE: tl.constexpr, ROWS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Turn cosines [T, N] into coefficients in place; sums: [programs, 7] float32, see ``dense_coefficients``."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)
    there = (rows < count)[:, None] & (columns < batch)[None, :]
    places = cosines + rows.to(tl.int64)[:, None] * batch + columns[None, :]
    cosine = tl.load(places, mask=there, other=0.0)
    own_row = tl.load(own_rows + columns, mask=columns < batch, other=-1)
    own = there & (rows[:, None] == own_row[None, :])
    theta = angle(cosine)
    exponent = slope * tl.where(own, theta - a, b - theta)
    coefficient = loss_scale / (1.0 + tl.exp(-exponent))
    tl.store(places, tl.where(own, -coefficient, coefficient), mask=there)
    if MEASURE:
        negative = there & (rows[:, None] != own_row[None, :])
        push = tl.where(negative, coefficient, 0.0)
        below = tl.where(negative, RIGHT_ANGLE - theta, 0.0)
        here = sums + (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * 7
        tl.store(here, tl.sum(tl.sum(push * cosine, axis=1), axis=0))
        tl.store(here + 1, -tl.sum(tl.sum(tl.where(own, coefficient * cosine, 0.0), axis=1), axis=0))
        tl.store(here + 2, tl.sum(tl.sum((push >= cut).to(tl.float32), axis=1), axis=0))
        tl.store(here + 3, tl.sum(tl.sum(tl.where(own, RIGHT_ANGLE - theta, 0.0), axis=1), axis=0))
        tl.store(here + 4, tl.sum(tl.sum(below, axis=1), axis=0))
        tl.store(here + 5, tl.sum(tl.sum(below * below, axis=1), axis=0))
        tl.store(here + 6, tl.sum(tl.sum(own.to(tl.float32), axis=1), axis=0))


@triton.jit(do_not_specialize=["count"])
def levels_program(
    cosines, inverses, sample_inverses, count, batch, loss_scale, slope, b, cut, sums,
    LEVELS: tl.constexpr, ROWS: tl.constexpr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """As ``sample_levels``, for one block; sums: [programs, LEVELS * 4 + 3] float32."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)
    there = (rows < count)[:, None] & (columns < batch)[None, :]
    places = cosines + rows.to(tl.int64)[:, None] * batch + columns[None, :]
    cosine = tl.load(places, mask=there, other=0.0)
    inverse = tl.load(inverses + rows, mask=rows < count, other=0.0)
    sample_inverse = tl.load(sample_inverses + columns, mask=columns < batch, other=0.0)
    negative = there & (cosine > NOT_OWN)
    theta = angle(cosine)
    share = tl.where(negative, 1.0 / (1.0 + tl.exp(-slope * (b - theta))), 0.0)
    coefficient = loss_scale * share
    tl.store(places, tl.where(coefficient < cut, coefficient, 0.0), mask=there)
    below = tl.where(negative, RIGHT_ANGLE - theta, 0.0)
    level = tl.minimum(tl.maximum(253 - (share.to(tl.int32, bitcast=True) >> 22), 0), LEVELS - 1)
    level = tl.where(negative, level, -1)
    force = coefficient * coefficient * tl.maximum(1.0 - cosine * cosine, 0.0)
    on_samples = force * (sample_inverse * sample_inverse)[None, :]
    on_rows = force * (inverse * inverse)[:, None]
    here = sums + (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * (LEVELS * 4 + 3)
    for number in range(LEVELS):
        in_it = level == number
        pairs = tl.sum(tl.sum(in_it.to(tl.float32), axis=1), axis=0)
        if pairs > 0.0:
            tl.store(here + number * 4, pairs)
            tl.store(here + number * 4 + 1, tl.sum(tl.sum(tl.where(in_it, coefficient, 0.0), axis=1), axis=0))
            tl.store(here + number * 4 + 2, tl.sum(tl.sum(tl.where(in_it, on_samples, 0.0), axis=1), axis=0))
            tl.store(here + number * 4 + 3, tl.sum(tl.sum(tl.where(in_it, on_rows, 0.0), axis=1), axis=0))
    tl.store(here + LEVELS * 4, tl.sum(tl.sum(negative.to(tl.float32), axis=1), axis=0))
    tl.store(here + LEVELS * 4 + 1, tl.sum(tl.sum(below, axis=1), axis=0))
    tl.store(here + LEVELS * 4 + 2, tl.sum(tl.sum(below * below, axis=1), axis=0))
