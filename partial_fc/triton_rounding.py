"""Centers of float32 or bfloat16 in Triton: read as they are, the latter written with stochastic rounding.

The formula is stated by :mod:`partial_fc.stochastic_rounding`; bits are the same.
"""

import triton
import triton.language as tl


@triton.jit
def place_of(places, row):
    """Where ``row`` lies in the table of weights."""
    return row if places is None else tl.load(places + row).to(tl.int64)


@triton.jit
def mixed(x):
    """An invertible hash of 32 bits."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def store_numbers(at, values, columns, inside, number, key_low, key_high):
    """Store the row of the global class ``number`` at the pointers ``at``; returns what is stored of it."""
    if at.dtype.element_ty == tl.bfloat16:
        low = (number & 0xFFFFFFFF).to(tl.uint32)
        high = (number >> 32).to(tl.uint32)
        start = mixed(mixed(key_low.to(tl.uint32) ^ low) ^ key_high.to(tl.uint32) ^ high)
        noise = mixed(start + columns.to(tl.uint32) * 0x9E3779B9) & 0xFFFF
        bits = values.to(tl.uint32, bitcast=True)
        quiet = tl.where((bits & 0x007FFFFF) != 0, 0x40, 0).to(tl.uint32)
        finite = (bits & 0x7F800000) != 0x7F800000
        half = tl.where(finite, (bits + noise) >> 16, (bits >> 16) | quiet)
        tl.store(at, half.to(tl.uint16).to(tl.bfloat16, bitcast=True), mask=inside)
        return (half << 16).to(tl.float32, bitcast=True)
    else:  # noqa: RET505  # the other branch is not even compiled
        tl.store(at, values, mask=inside)
        return values


@triton.jit
def store_row(weights, places, row, values, columns, inside, dim, key_low, key_high, first_class):
    """Store a row of the shard, wherever it lies; returns what is stored of it."""
    at = weights + place_of(places, row) * dim + columns
    return store_numbers(at, values, columns, inside, first_class + row, key_low, key_high)
