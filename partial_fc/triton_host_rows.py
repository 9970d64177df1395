"""Triton programs that read and write rows of pinned host memory from the GPU, which sees it over the bus."""

import triton
import triton.language as tl


@triton.jit
def fetch_program(table, rows, out, dim, BLOCK: tl.constexpr):
    """One row of the table to its place in ``out``."""
    place = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    row = tl.load(rows + place)
    values = tl.load(table + row * dim + columns, mask=columns < dim)
    tl.store(out + place * dim + columns, values, mask=columns < dim)


@triton.jit
def put_program(table, rows, values, dim, BLOCK: tl.constexpr):
    """The counterpart."""
    place = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    row = tl.load(rows + place)
    value = tl.load(values + place * dim + columns, mask=columns < dim)
    tl.store(table + row * dim + columns, value, mask=columns < dim)
