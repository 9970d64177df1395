"""The kernels of :mod:`partial_fc.kernels_torch` in Triton, for CUDA; same names, same arguments.

Launching one small operation after the other, a GPU would wait for Python most of the time, and every operation would
read and write all rows anew. Here each row or pair is one program, and is read once.
Shape letters: R rows of the shard, D embedding size, N global batch, M the batch padded, T rows of a tile, P pairs.
"""

import math
from collections.abc import Callable

import torch
import triton
from torch import Tensor

from partial_fc import triton_pairs, triton_rows
from partial_fc.coded_batch import CodedBatch
from partial_fc.kernels_torch import exact_cosines
from partial_fc.pairs import Pairs, ScoreSums
from partial_fc.row_tables import Motion, RowTables
from partial_fc.sface import SFace, angle
from partial_fc.triton_width import row_width

FUSED = True
TILE_KEYS = 2**28  # row * M + sample of a tile must fit in 32 bits, and its candidates in memory
CANDIDATE_SHARE = 32  # one pair in so many has room among the candidates, before there is made more
LEAST_ROOM = 2**16
SHARES = 16  # programs per sample that add up its gradient
AT_ONCE = 4  # pairs that a program has in work


def gather_unit(tables: RowTables, rows: Tensor | None, start: int, count: int, unit: Tensor, inverse: Tensor) -> None:
    """See :func:`partial_fc.kernels_torch.gather_unit`."""
    if count:
        triton_rows.gather_program[(count,)](
            *_place(tables), tables.norm_floor, rows, start, unit, inverse, _dim(tables), **_width(tables)
        )


def encode_rows(tables: RowTables, start: int, count: int) -> None:
    """See :func:`partial_fc.kernels_torch.encode_rows`."""
    if count:
        triton_rows.encode_program[(count,)](
            tables.weights, tables.places, tables.codes, tables.scales, tables.slack, tables.slots, tables.momentum,
            tables.touched, tables.unrest, tables.travel, tables.now, tables.norm_floor, tables.calm, start,
            _dim(tables), tables.code_width, **_width(tables),
        )  # fmt: skip


def update_rows(
    tables: RowTables, rows: Tensor, pairs: Pairs | None, offsets: Tensor | None, embeddings: Tensor, motion: Motion
) -> None:
    """See :func:`partial_fc.kernels_torch.update_rows`."""
    parts = (None, None, None) if pairs is None else (pairs.samples, pairs.coefficients, pairs.cosines)
    kind = triton_rows.NOTHING if pairs is None else triton_rows.PAIRS
    _update(tables, len(rows), (rows, 0, offsets, *parts, embeddings, None), kind, motion, encode=True)


def update_dense(tables: RowTables, start: int, sums: Tensor, motion: Motion) -> None:
    """See :func:`partial_fc.kernels_torch.update_dense`."""
    nothing = (None, None, None, None, None)
    _update(tables, len(sums), (None, start, *nothing, sums), triton_rows.SUMS, motion, encode=False)


def settle_rows(tables: RowTables, rows: Tensor, rest: float, motion: Motion) -> None:
    """See :func:`partial_fc.kernels_torch.settle_rows`."""
    if len(rows):
        triton_rows.settle_program[(len(rows),)](
            *_all(tables), *_rounding(tables), *_life(motion), rows, rest, _dim(tables), tables.code_width,
            TO_REST=rest > 0.0, ENCODE=tables.codes is not None, **_width(tables),
        )  # fmt: skip


def tile_rows(padded: int, device: torch.device) -> int:
    """T: rows that :func:`screen_tile` takes at a time, on any ``device``."""
    return max(1, TILE_KEYS // padded)


def screen_tile(
    tables: RowTables,
    start: int,
    count: int,
    coded: CodedBatch,
    embeddings: Tensor,
    own: tuple[Tensor, Tensor],
    loss: SFace,
    lowest: float,
    cut: float,
    gradient: Tensor | None,
    sums: ScoreSums,
    fetch: Callable[[Tensor], None] | None = None,
) -> Pairs:
    """:func:`partial_fc.kernels_torch.score_tile` with its int8 products, for ``count`` rows from ``start`` on.

    fetch: brings rows [A] int64 to the device, where they are not there.
    """
    padded = len(coded.scales)
    if count < len(tables.slots):
        here = ((own[0] >= start) & (own[0] < start + count)).nonzero().squeeze(1)
        own = own[0][here], own[1][here]
    keys = _candidates(tables, start, count, coded, own, lowest)
    if fetch is not None:
        fetch(torch.unique_consecutive(keys // padded).long() + start)
    cosines, inverses = embeddings.new_empty(len(keys)), embeddings.new_empty(len(keys))
    if len(keys):
        triton_pairs.score_program[(len(keys),)](
            *_place(tables), tables.norm_floor, keys, start, embeddings, cosines, inverses, _dim(tables),
            PADDED=padded, **_width(tables),
        )  # fmt: skip
    own_places = torch.searchsorted(keys, ((own[0] - start) * padded + own[1]).to(keys.dtype))
    exact = exact_cosines(tables, own[0], own[1], embeddings)
    own_cosines, pulls = exact.float(), loss.positive_coefficient(exact).float()
    cosines[own_places] = own_cosines
    coefficients = loss.negative_coefficient(cosines)
    negatives = coefficients >= cut
    negatives[own_places] = False
    kept_or_own = negatives.clone()
    kept_or_own[own_places] = True
    coefficients[own_places] = -pulls
    places = kept_or_own.nonzero().squeeze(1)
    keys = keys[places].long()
    pairs = Pairs(keys // padded + start, (keys % padded).int(), coefficients[places], cosines[places])
    inverses = inverses[places]
    if gradient is not None:
        _add_pulls(tables, pairs, inverses, gradient)
    _add_sums(sums, pairs, inverses, negatives[places], len(cosines) - len(pulls), own_cosines)
    return pairs


def dense_coefficients(
    cosines: Tensor, own: tuple[Tensor, Tensor], loss: SFace, cut: float, sums: Tensor | None
) -> None:
    """See :func:`partial_fc.kernels_torch.dense_coefficients`."""
    count, batch = cosines.shape
    rows, samples = 16, min(128, max(16, triton.next_power_of_2(batch)))
    grid = (triton.cdiv(count, rows), triton.cdiv(batch, samples))
    if not count or not batch:
        return
    own_rows = torch.full((batch,), -1, dtype=torch.int32, device=cosines.device)
    own_rows[own[1]] = own[0].int()
    partial = None if sums is None else cosines.new_empty(grid[0] * grid[1], 7)
    triton_pairs.dense_program[grid](
        cosines, own_rows, count, batch, loss.scale, loss.slope, loss.a, loss.b, cut, partial,
        MEASURE=sums is not None, ROWS=rows, SAMPLES=samples, num_warps=4,
    )  # fmt: skip
    if sums is not None and partial is not None:
        sums += partial.sum(dim=0, dtype=torch.float64)


def sample_levels(
    cosines: Tensor, inverses: Tensor, sample_inverses: Tensor, loss: SFace, cut: float, levels: Tensor, sums: Tensor
) -> None:
    """See :func:`partial_fc.kernels_torch.sample_levels`."""
    count, batch = cosines.shape
    rows, samples = 32, min(64, max(16, triton.next_power_of_2(batch)))
    grid = (triton.cdiv(count, rows), triton.cdiv(batch, samples))
    if not count or not batch:
        return
    partial = cosines.new_zeros(grid[0] * grid[1], levels.numel() + 3)
    triton_pairs.levels_program[grid](
        cosines, inverses, sample_inverses, count, batch, loss.scale, loss.slope, loss.b, cut, partial,
        LEVELS=len(levels), ROWS=rows, SAMPLES=samples, num_warps=4,
    )  # fmt: skip
    found = partial.sum(dim=0, dtype=torch.float64)
    levels += found[:-3].view_as(levels)
    sums += found[-3:]


def gradient_blocks() -> int:
    """Blocks of the ``gradient`` that :func:`screen_tile` takes."""
    return SHARES


def _candidates(
    tables: RowTables, start: int, count: int, coded: CodedBatch, own: tuple[Tensor, Tensor], lowest: float
) -> Tensor:
    """Sorted int32 keys (row - start) * M + sample of all pairs that must be scored, own ones included."""
    padded, device = len(coded.scales), tables.weights.device
    own_rows = torch.full((padded,), -1, dtype=torch.int32, device=device)
    own_rows[own[1]] = own[0].int()
    total = torch.zeros(1, dtype=torch.int32, device=device)
    rows, samples = 128, min(128, max(32, triton.next_power_of_2(padded)))
    grid = (triton.cdiv(count, rows) * triton.cdiv(padded, samples),)
    capacity = max(count * padded // CANDIDATE_SHARE, LEAST_ROOM)
    while True:
        found = torch.empty(capacity, dtype=torch.int32, device=device)
        triton_pairs.screen_program[grid](
            tables.codes, coded.codes.T, tables.scales, tables.slack, coded.scales, coded.residuals, own_rows, lowest,
            start, count, tables.code_width, found, total, capacity,
            PADDED=padded, ROWS=rows, SAMPLES=samples, DEPTH=64, num_warps=8, num_stages=3,
        )  # fmt: skip
        number = int(total)
        if number <= capacity:
            return found[:number].sort().values
        capacity = number
        total.zero_()


def _add_pulls(tables: RowTables, pairs: Pairs, inverses: Tensor, gradient: Tensor) -> None:
    """gradient [SHARES, M, D] takes coefficient * unit row; the order of the sum does not depend on chance."""
    if not len(pairs):
        return
    samples, order = pairs.samples.sort(stable=True)
    padded = gradient.shape[1]
    edges = torch.arange(padded + 1, dtype=samples.dtype, device=samples.device)
    offsets = torch.searchsorted(samples, edges)
    factors = (pairs.coefficients * inverses)[order]
    triton_pairs.pull_program[(padded, SHARES)](
        *_place(tables), pairs.rows[order], factors, offsets, gradient, padded, _dim(tables),
        SHARES=SHARES, AT_ONCE=AT_ONCE, BLOCK=triton.next_power_of_2(_dim(tables)), num_warps=4,
    )  # fmt: skip


def _add_sums(
    sums: ScoreSums, pairs: Pairs, inverses: Tensor, negative: Tensor, scored: int, own_cosines: Tensor
) -> None:
    coefficients, cosines = pairs.coefficients.double(), pairs.cosines.double()
    force = coefficients**2 * (1.0 - cosines**2).clamp_min(0.0) * inverses.double() ** 2
    pushes = negative.double()
    terms = torch.stack([coefficients * cosines, force, pushes])
    of_negatives, of_own = (terms @ torch.stack([pushes, 1.0 - pushes], dim=1)).unbind(dim=1)
    own_angles = (math.pi / 2 - angle(own_cosines)).sum(dtype=torch.float64)
    # One addition for all that the device knows; the order is that of the names.
    zero = torch.zeros_like(own_angles)
    parts = [of_negatives[0], of_own[0], of_negatives[2], zero, own_angles, zero, of_negatives[1], of_own[1]]
    names = (sums.INTER, sums.INTRA, sums.KEPT, sums.SCORED, sums.OWN_ANGLES, sums.OWN_PAIRS)
    assert (*names, sums.NEGATIVE_FORCE, sums.OWN_FORCE) == tuple(range(len(parts)))
    sums.values += torch.stack(parts)
    sums.values[sums.SCORED] += scored
    sums.values[sums.OWN_PAIRS] += len(own_cosines)


def _update(
    tables: RowTables, count: int, inputs: tuple[object, ...], kind: object, motion: Motion, *, encode: bool
) -> None:
    if not count:
        return
    triton_rows.update_program[(count,)](
        *_all(tables), *_rounding(tables), motion.rate, motion.momentum_factor, *_life(motion), *inputs, _dim(tables),
        tables.code_width,
        GRADIENT=kind, ENCODE=encode and tables.codes is not None, AT_ONCE=AT_ONCE, **_width(tables),
    )  # fmt: skip


def _dim(tables: RowTables) -> int:
    return tables.weights.shape[1]


def _place(tables: RowTables) -> tuple[object, ...]:
    """What it takes to know where a row stands now."""
    return tables.weights, tables.places, tables.slots, tables.momentum, tables.touched, tables.travel, tables.now


def _all(tables: RowTables) -> tuple[object, ...]:
    return (
        *(tables.weights, tables.places, tables.codes, tables.scales, tables.slack, tables.slots, tables.momentum),
        *(
            tables.touched,
            tables.expiry,
            tables.unrest,
            tables.travel,
            tables.decay,
            tables.now,
            tables.norm_floor,
            tables.calm,
        ),
    )


def _rounding(tables: RowTables) -> tuple[int, ...]:
    return *tables.rounding.signed_halves, tables.rounding.first_class


def _life(motion: Motion) -> tuple[float, ...]:
    log_factor = math.log(motion.momentum_factor) if motion.momentum_factor > 0.0 else -1.0
    return log_factor, motion.reach, motion.patient_reach, motion.rounding, motion.longest


def _width(tables: RowTables) -> dict[str, int]:
    return row_width(_dim(tables))
