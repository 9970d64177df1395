"""Triton programs over rows of centers: one program reads a row, does all there is to do with it, and writes it once.

What they compute is stated by :mod:`partial_fc.kernels_torch`, their reference; names are those of ``RowTables`` and
``Motion``.
Pointers to [R, D] and [K, D] arrays are followed with 64-bit offsets: ten million rows of 512 exceed 32 bits.
"""

import triton
import triton.language as tl

from partial_fc import kernels_torch
from partial_fc.triton_rounding import place_of, store_row

LARGEST_CODE = tl.constexpr(kernels_torch.LARGEST_CODE)
ROUNDING_SLACK = tl.constexpr(kernels_torch.ROUNDING_SLACK)
MUCH_UNREST = tl.constexpr(kernels_torch.MUCH_UNREST)
SHORTEST_LIFE = tl.constexpr(kernels_torch.SHORTEST_LIFE)
NOTHING, PAIRS, SUMS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # what a row's gradient is made of


@triton.jit
def row_now(weights, places, slots, momentum, touched, travel, now, row, columns, inside, dim):
    """The row as it stands now, its slot (-1: none), its momentum and the momentum's age."""
    slot = tl.load(slots + row)
    live = slot >= 0
    held = tl.where(live, slot, 0).to(tl.int64)
    age = now - tl.load(touched + held, mask=live, other=now)
    far = tl.load(travel + age, mask=live, other=0.0)
    motion = tl.load(momentum + held * dim + columns, mask=inside & live, other=0.0)
    values = tl.load(weights + place_of(places, row) * dim + columns, mask=inside, other=0.0).to(tl.float32)
    return values - far * motion, slot, motion, age


@triton.jit
def inverse_norm(values, norm_floor):
    """1 / |values|, 0 where they have no direction."""
    norm = tl.sqrt(tl.sum(values * values, axis=0))
    return tl.where(norm > norm_floor, 1.0 / norm, 0.0)


@triton.jit
def store_codes(codes, scales, slack, row, values, inverse, drift, columns, inside, code_width):
    """int8 codes, scale and slack of a row."""
    unit = values * inverse
    scale = tl.max(tl.abs(unit), axis=0) / LARGEST_CODE
    rounded = tl.floor(unit / tl.where(scale > 0.0, scale, 1.0) + 0.5)
    rest = unit - scale * rounded
    tl.store(codes + row * code_width + columns, rounded.to(tl.int8), mask=inside)
    tl.store(scales + row, scale)
    tl.store(slack + row, tl.sqrt(tl.sum(rest * rest, axis=0)) * 1.00001 + ROUNDING_SLACK + drift)


@triton.jit
def store_life(touched, expiry, unrest, slot, after, inverse, now, log_factor, reach, patient_reach, rounding, longest):
    """Note when a row was touched and how long its momentum ``after`` matters; returns its unrest."""
    speed = tl.sqrt(tl.sum(after * after, axis=0)) * inverse
    angle = tl.minimum(reach * speed * 1.0001, MUCH_UNREST)
    angle = tl.where(inverse > 0.0, angle, MUCH_UNREST)
    left = patient_reach * speed
    steps = tl.ceil(tl.log(rounding / tl.where(left > rounding, left, rounding)) / log_factor)
    steps = tl.minimum(tl.maximum(steps, SHORTEST_LIFE * 1.0), longest * 1.0)
    tl.store(touched + slot, now)
    tl.store(expiry + slot, now + steps.to(tl.int32))
    tl.store(unrest + slot, angle)
    return angle


@triton.jit(do_not_specialize=["now", "start"])
def gather_program(
    weights, places, slots, momentum, touched, travel, now, norm_floor, rows, start, unit, inverses, dim,
    BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    row = start + place if rows is None else tl.load(rows + place)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    values, _, _, _ = row_now(weights, places, slots, momentum, touched, travel, now, row, columns, inside, dim)
    inverse = inverse_norm(values, norm_floor)
    tl.store(inverses + place, inverse)
    tl.store(unit + place * dim + columns, values * inverse, mask=inside)


@triton.jit(do_not_specialize=["now", "start"])
def encode_program(
    weights, places, codes, scales, slack, slots, momentum, touched, unrest, travel, now, norm_floor, calm, start, dim,
    code_width, BLOCK: tl.constexpr,
):  # fmt: skip
    row = start + tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    values, slot, _, _ = row_now(weights, places, slots, momentum, touched, travel, now, row, columns, inside, dim)
    angle = tl.load(unrest + tl.where(slot >= 0, slot, 0), mask=slot >= 0, other=0.0)
    drift = tl.where(angle <= calm, angle, 0.0)
    inverse = inverse_norm(values, norm_floor)
    store_codes(codes, scales, slack, row, values, inverse, drift, columns, inside, code_width)


@triton.jit(do_not_specialize=["now", "start", "key_low", "key_high"])
def update_program(
    weights, places, codes, scales, slack, slots, momentum, touched, expiry, unrest, travel, decay, now, norm_floor,
    calm, key_low, key_high, first_class, rate, factor, log_factor, reach, patient_reach, rounding, longest,
    rows, start, offsets, samples, coefficients, cosines, embeddings, sums, dim, code_width,
    GRADIENT: tl.constexpr, ENCODE: tl.constexpr, BLOCK: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    row = start + place if rows is None else tl.load(rows + place)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    values, slot, motion, age = row_now(
        weights, places, slots, momentum, touched, travel, now, row, columns, inside, dim
    )
    inverse = inverse_norm(values, norm_floor)
    after = tl.zeros([BLOCK], dtype=tl.float32)
    if GRADIENT == PAIRS:
        first, last = tl.load(offsets + place), tl.load(offsets + place + 1)
        radial = tl.sum(after, axis=0)
        for begin in range(first, last, AT_ONCE):
            pairs = begin + tl.arange(0, AT_ONCE)
            there = pairs < last
            sample = tl.load(samples + pairs, mask=there, other=0).to(tl.int64)
            coefficient = tl.load(coefficients + pairs, mask=there, other=0.0)
            cosine = tl.load(cosines + pairs, mask=there, other=0.0)
            x = tl.load(
                embeddings + sample[:, None] * dim + columns[None, :],
                mask=there[:, None] & inside[None, :],
                other=0.0,
            )
            after += tl.sum(coefficient[:, None] * x, axis=0)
            radial += tl.sum(coefficient * cosine, axis=0)
        after = (after - (radial * inverse) * values) * inverse
    if GRADIENT == SUMS:
        pull = tl.load(sums + place * dim + columns, mask=inside, other=0.0)
        radial = tl.sum(pull * values, axis=0) * inverse * inverse
        after = (pull - radial * values) * inverse
    live = slot >= 0
    held = tl.where(live, slot, 0).to(tl.int64)
    after += factor * tl.load(decay + age, mask=live, other=0.0) * motion
    values -= rate * after
    values = store_row(weights, places, row, values, columns, inside, dim, key_low, key_high, first_class)
    tl.store(momentum + held * dim + columns, after, mask=inside & live)
    inverse = inverse_norm(values, norm_floor)
    drift = 0.0
    if live:
        angle = store_life(
            touched, expiry, unrest, held, after, inverse, now + 1, log_factor, reach, patient_reach, rounding, longest
        )
        drift = tl.where(angle <= calm, angle, 0.0)
    if ENCODE:
        store_codes(codes, scales, slack, row, values, inverse, drift, columns, inside, code_width)


@triton.jit(do_not_specialize=["now", "key_low", "key_high"])
def settle_program(
    weights, places, codes, scales, slack, slots, momentum, touched, expiry, unrest, travel, decay, now, norm_floor,
    calm, key_low, key_high, first_class, log_factor, reach, patient_reach, rounding, longest, rows, rest, dim,
    code_width, TO_REST: tl.constexpr, ENCODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + place)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    values, slot, motion, age = row_now(
        weights, places, slots, momentum, touched, travel, now, row, columns, inside, dim
    )
    if slot >= 0:
        held = slot.to(tl.int64)
        faded = tl.load(decay + age)
        values -= (rest * faded) * motion
        after = motion * faded
        values = store_row(weights, places, row, values, columns, inside, dim, key_low, key_high, first_class)
        tl.store(momentum + held * dim + columns, after, mask=inside)
        inverse = inverse_norm(values, norm_floor)
        drift = 0.0
        if TO_REST:
            tl.store(unrest + held, 0.0)
        else:
            angle = store_life(
                touched, expiry, unrest, held, after, inverse, now, log_factor, reach, patient_reach, rounding, longest
            )
            drift = tl.where(angle <= calm, angle, 0.0)
        if ENCODE:
            store_codes(codes, scales, slack, row, values, inverse, drift, columns, inside, code_width)
