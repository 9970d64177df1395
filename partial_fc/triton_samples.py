"""Triton programs over a batch and a sample of unit rows.

What they compute is stated by :mod:`partial_fc.sample_kernels_torch`, their reference.
"""

import triton
import triton.language as tl

from partial_fc import row_kernels_torch, sample_kernels_torch
from partial_fc.triton_pairs import angle

LARGEST_CODE = tl.constexpr(row_kernels_torch.LARGEST_CODE)
ROUNDING_SLACK = tl.constexpr(row_kernels_torch.ROUNDING_SLACK)
PADDING = tl.constexpr(sample_kernels_torch.PADDING)


@triton.jit(do_not_specialize=["batch"])
def code_program(unit, batch, dim, codes, width, scales, residuals, BLOCK: tl.constexpr):
    """Codes, scale and residual of one sample; of padding, what reaches nothing."""
    sample = tl.program_id(0)
    there = sample < batch
    columns = tl.arange(0, BLOCK)
    values = tl.load(unit + sample * dim + columns, mask=(columns < dim) & there, other=0.0)
    scale = tl.max(tl.abs(values), axis=0) / LARGEST_CODE
    # Half way between two codes either will do: the residual is of the one that is taken.
    rounded = tl.floor(values / tl.where(scale > 0.0, scale, 1.0) + 0.5)
    rest = values - scale * rounded
    residual = tl.sqrt(tl.sum(rest * rest, axis=0)) * 1.00001 + ROUNDING_SLACK
    tl.store(codes + sample * width + columns, rounded.to(tl.int8), mask=columns < width)
    tl.store(scales + sample, scale)
    tl.store(residuals + sample, tl.where(there, residual, PADDING))


@triton.jit(do_not_specialize=["count"])
def rows_program(
    dropped, count, batch, pull, centers, dim, weights, sample_weights, columns_sums, row_sums,
    ROWS: tl.constexpr, SAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of ROWS sampled rows: per sample the sums of d and of d^2 [programs, 2, N]; the sums over rows of (sum of
    d^2 / |x|^2)^2 and of the force on the row [programs, 2].
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    there = rows < count
    weighted = tl.zeros([ROWS], dtype=tl.float64)
    for first in range(0, batch, SAMPLES):
        columns = first + tl.arange(0, SAMPLES)
        inside = columns < batch
        places = dropped + rows.to(tl.int64)[:, None] * batch + columns[None, :]
        values = tl.load(places, mask=there[:, None] & inside[None, :], other=0.0).to(tl.float64)
        sample_weight = tl.load(sample_weights + columns, mask=inside, other=0.0).to(tl.float64)
        here = columns_sums + tl.program_id(0) * 2 * batch + columns
        tl.store(here, tl.sum(values, axis=0), mask=inside)
        tl.store(here + batch, tl.sum(values * values, axis=0), mask=inside)
        scaled = values * sample_weight[None, :]
        weighted += tl.sum(scaled * scaled, axis=1)
    norms = tl.zeros([ROWS], dtype=tl.float64)
    radial = tl.zeros([ROWS], dtype=tl.float64)
    for first in range(0, dim, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        mask = there[:, None] & (columns < dim)[None, :]
        at = rows.to(tl.int64)[:, None] * dim + columns[None, :]
        pulls = tl.load(pull + at, mask=mask, other=0.0)
        directions = tl.load(centers + at, mask=mask, other=0.0)
        norms += tl.sum(pulls * pulls, axis=1).to(tl.float64)
        radial += tl.sum(pulls * directions, axis=1).to(tl.float64)
    weight = tl.load(weights + rows, mask=there, other=0.0).to(tl.float64)
    tangential = norms - radial * radial
    force = weight * weight * tl.where(tangential > 0.0, tangential, 0.0)
    tl.store(row_sums + tl.program_id(0) * 2, tl.sum(weighted * weighted, axis=0))
    tl.store(row_sums + tl.program_id(0) * 2 + 1, tl.sum(force, axis=0))


@triton.jit(do_not_specialize=["parts"])
def samples_program(
    push, unit, gram, sample_weights, columns_sums, parts, batch, dim, found,
    PARTS: tl.constexpr, SAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of one sample, [N, 4]: its parts of coherent (``below`` not yet taken off), mass, gram's squares and radial."""
    sample = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    pushes = tl.load(push + sample * dim + columns, mask=inside, other=0.0)
    direction = tl.load(unit + sample * dim + columns, mask=inside, other=0.0)
    radial = tl.sum(pushes * direction, axis=0).to(tl.float64)
    norm = tl.sum((pushes * pushes).to(tl.float64), axis=0)
    weight = tl.load(sample_weights + sample).to(tl.float64)
    square = weight * weight
    total = tl.zeros([PARTS], dtype=tl.float64)
    squares = tl.zeros([PARTS], dtype=tl.float64)
    for first in range(0, parts, PARTS):
        numbers = first + tl.arange(0, PARTS)
        at = columns_sums + numbers * 2 * batch + sample
        total += tl.load(at, mask=numbers < parts, other=0.0)
        squares += tl.load(at + batch, mask=numbers < parts, other=0.0)
    whole = tl.sum(total, axis=0)
    together = tl.zeros([SAMPLES], dtype=tl.float64)
    for first in range(0, batch, SAMPLES):
        others = first + tl.arange(0, SAMPLES)
        theirs = tl.load(sample_weights + others, mask=others < batch, other=0.0).to(tl.float64)
        product = tl.load(gram + sample * batch + others, mask=others < batch, other=0.0).to(tl.float64)
        scaled = product * theirs * weight
        together += scaled * scaled
    here = found + sample * 4
    tl.store(here, square * (norm - radial * radial))
    tl.store(here + 1, square * (whole * whole - tl.sum(squares, axis=0)))
    tl.store(here + 2, tl.sum(together, axis=0))
    tl.store(here + 3, radial)


@triton.jit
def own_program(
    centers, weights, samples, unit, sample_weights, scale, slope, a, dim, found, BLOCK: tl.constexpr
):  # fmt: skip
    """Of one own pair, [P, 2]: coefficient^2 sin^2 over |x|^2 and over |w|^2."""
    pair = tl.program_id(0).to(tl.int64)
    sample = tl.load(samples + pair)
    columns = tl.arange(0, BLOCK)
    inside = columns < dim
    center = tl.load(centers + pair * dim + columns, mask=inside, other=0.0)
    x = tl.load(unit + sample * dim + columns, mask=inside, other=0.0)
    cosine = tl.sum(center * x, axis=0)
    coefficient = (scale / (1.0 + tl.exp(-slope * (angle(cosine) - a)))).to(tl.float64)
    tangential = 1.0 - cosine.to(tl.float64) * cosine.to(tl.float64)
    force = coefficient * coefficient * tl.where(tangential > 0.0, tangential, 0.0)
    on_sample = tl.load(sample_weights + sample).to(tl.float64)
    on_row = tl.load(weights + pair).to(tl.float64)
    tl.store(found + pair * 2, force * on_sample * on_sample)
    tl.store(found + pair * 2 + 1, force * on_row * on_row)
