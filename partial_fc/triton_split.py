"""Triton programs that split float32 numbers into two of bfloat16, see :mod:`partial_fc.split_batch`."""

import triton
import triton.language as tl

from partial_fc.triton_rows import inverse_norm


@triton.jit
def store_parts(at, values, width, mask):
    """[high | high | low] of a row, ``width`` numbers each."""
    high = values.to(tl.bfloat16, fp_downcast_rounding="rtne")
    low = (values - high.to(tl.float32)).to(tl.bfloat16, fp_downcast_rounding="rtne")
    tl.store(at, high, mask=mask)
    tl.store(at + width, high, mask=mask)
    tl.store(at + 2 * width, low, mask=mask)


@triton.jit(do_not_specialize=["start"])
def unit_program(table, rows, start, norm_floor, parts, inverses, dim, BLOCK: tl.constexpr):
    """Parts of the unit row, and the inverse norm, of one row."""
    place = tl.program_id(0).to(tl.int64)
    row = start + place if rows is None else tl.load(rows + place)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    values = tl.load(table + row * dim + columns, mask=inside, other=0.0).to(tl.float32)
    inverse = inverse_norm(values, norm_floor)
    tl.store(inverses + place, inverse)
    store_parts(parts + place * 3 * dim + columns, values * inverse, dim, inside)


@triton.jit(do_not_specialize=["count"])
def split_program(values, parts, count, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[T, n] -> [T, 3n]."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    there = (rows < count)[:, None] & (columns < width)[None, :]
    at = rows.to(tl.int64)[:, None] * width
    found = tl.load(values + at + columns[None, :], mask=there, other=0.0)
    store_parts(parts + 3 * at + columns[None, :], found, width, there)


@triton.jit
def through_program(gradients, parts, inverses, dim, BLOCK: tl.constexpr):
    """The gradient of one row from that of its unit row, in place."""
    place = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    here = parts + place * 3 * dim + columns
    high = tl.load(here, mask=inside, other=0.0).to(tl.float32)
    direction = high + tl.load(here + 2 * dim, mask=inside, other=0.0).to(tl.float32)
    gradient = tl.load(gradients + place * dim + columns, mask=inside, other=0.0)
    radial = tl.sum(gradient * direction, axis=0)
    moved = (gradient - radial * direction) * tl.load(inverses + place)
    tl.store(gradients + place * dim + columns, moved, mask=inside)
