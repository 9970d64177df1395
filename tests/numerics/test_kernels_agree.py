"""The compiled kernels against PyTorch's, function by function, on rows at rest, in motion, zero, huge and tiny."""

import copy
from dataclasses import fields

import pytest
import torch

from partial_fc import SFace, kernels_native, kernels_torch, native_library
from partial_fc.coded_batch import CodedBatch
from partial_fc.pairs import PairBuffer, Pairs, ScoreSums
from partial_fc.row_tables import Motion, RowTables
from partial_fc.workspace import Workspace

pytestmark = pytest.mark.numerics

ROWS, DIM, BATCH, SLOTS, NOW, LONGEST = 203, 37, 21, 90, 50, 40
MOTION = Motion(rate=0.1, momentum_factor=0.9, reach=0.9, patient_reach=1.1, rounding=2.0**-23, longest=LONGEST)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


@pytest.fixture
def tables() -> RowTables:
    draw = generator()
    weights = torch.randn(ROWS, DIM, generator=draw)
    weights[7], weights[8], weights[9] = 0.0, weights[8] * 1e6, weights[9] * 1e-6
    result = RowTables.around(weights, norm_floor=1e-12, calm=0.004)
    result.now = NOW
    moving = torch.randperm(ROWS, generator=draw)[:SLOTS]
    result.slots[moving] = torch.arange(SLOTS, dtype=torch.int32)
    result.momentum = torch.randn(SLOTS, DIM, generator=draw) * 0.01
    result.touched = torch.randint(NOW - LONGEST, NOW + 1, (SLOTS,), generator=draw, dtype=torch.int32)
    result.expiry = torch.full((SLOTS,), NOW + 9, dtype=torch.int32)
    result.unrest = torch.rand(SLOTS, generator=draw) * 0.01
    result.decay = 0.9 ** torch.arange(LONGEST + 1.0)
    result.travel = torch.cumsum(result.decay * 0.1, 0) - 0.1
    result.codes = torch.zeros(ROWS, result.code_width, dtype=torch.int8)
    kernels_torch.encode_all(result)
    return result


def assert_same(found: RowTables, expected: RowTables) -> None:
    for field in fields(RowTables):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "codes":
            # A value half way between two codes may go either way.
            assert (ours.int() - theirs.int()).abs().max() <= 1
        elif field.name == "expiry":
            assert (ours - theirs).abs().max() <= 1
        elif isinstance(ours, torch.Tensor):
            assert torch.allclose(ours, theirs, rtol=2e-5, atol=2e-6), field.name


def unit_embeddings() -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(BATCH, DIM, generator=generator()))


def random_pairs() -> tuple[torch.Tensor, Pairs, torch.Tensor]:
    """Rows, their pairs and offsets; one row has as many pairs as there are samples, one has none."""
    draw = generator()
    rows = torch.randperm(ROWS, generator=draw)[:60].sort().values
    counts = torch.randint(0, 4, (60,), generator=draw)
    counts[3], counts[4] = BATCH, 0
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    total = int(offsets[-1])
    pairs = Pairs(
        torch.repeat_interleave(rows, counts),
        torch.randint(BATCH, (total,), generator=draw, dtype=torch.int32),
        torch.randn(total, generator=draw),
        torch.rand(total, generator=draw) - 0.5,
    )
    return rows, pairs, offsets


def both(tables: RowTables) -> list[tuple[object, RowTables]]:
    return [(kernels, copy.deepcopy(tables)) for kernels in (kernels_native, kernels_torch)]


def test_the_compiled_kernels_were_built() -> None:
    assert native_library.available(), "this environment has a compiler: make venv builds them"


@pytest.mark.parametrize("rows", [None, torch.tensor([200, 7, 8, 9, 3])])
def test_gather_unit(tables: RowTables, rows: torch.Tensor | None) -> None:
    found = []
    for kernels, copied in both(tables):
        count = 90 if rows is None else len(rows)
        unit, inverse = torch.empty(count, DIM), torch.empty(count)
        kernels.gather_unit(copied, rows, 5, count, unit, inverse)
        found.append((unit, inverse))
    torch.testing.assert_close(*(unit for unit, _ in found))
    torch.testing.assert_close(*(inverse for _, inverse in found))


def test_encode_all_and_its_bound(tables: RowTables) -> None:
    (_, native), (_, plain) = both(tables)
    native.codes.zero_()
    kernels_native.encode_all(native)
    assert_same(native, plain)
    unit, inverse = torch.empty(ROWS, DIM), torch.empty(ROWS)
    kernels_torch.gather_unit(native, None, 0, ROWS, unit, inverse)
    residual = (unit.double() - native.scales[:, None].double() * native.codes[:, :DIM].double()).norm(dim=1)
    assert (residual <= native.slack.double()).all()
    assert native.slack.max() < 0.05


@pytest.mark.parametrize("with_pairs", [True, False])
def test_update_rows(tables: RowTables, with_pairs: bool) -> None:
    rows, pairs, offsets = random_pairs()
    results = []
    for kernels, copied in both(tables):
        if with_pairs:
            kernels.update_rows(copied, rows, pairs, offsets, unit_embeddings(), MOTION)
        else:
            moving = (copied.slots >= 0).nonzero().squeeze(1)
            kernels.update_rows(copied, moving, None, None, copied.weights, MOTION)
        results.append(copied)
    assert_same(*results)
    assert not torch.equal(results[0].weights, tables.weights)


def test_update_dense(tables: RowTables) -> None:
    sums = torch.randn(120, DIM, generator=generator())
    results = []
    for kernels, copied in both(tables):
        kernels.update_dense(copied, 40, sums, MOTION)
        results.append(copied)
    assert_same(*results)


@pytest.mark.parametrize("rest", [0.0, 0.9])
def test_settle_rows(tables: RowTables, rest: float) -> None:
    results = []
    for kernels, copied in both(tables):
        moving = (copied.slots >= 0).nonzero().squeeze(1)[:50]
        kernels.settle_rows(copied, moving, rest, MOTION)
        results.append(copied)
    assert_same(*results)


def own_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Two samples share a center; one owns the zero row."""
    return torch.tensor([7, 30, 30, 120]), torch.tensor([2, 1, 20, 0])


@pytest.mark.parametrize(("lowest", "cut"), [(0.1, 1e-3), (-2.0, 0.0), (2.0, 1e9)])
def test_score_tile(tables: RowTables, lowest: float, cut: float) -> None:
    loss, embeddings = SFace(), unit_embeddings()
    coded = CodedBatch.of(embeddings, tables.code_width)
    width = len(coded.scales)
    results = []
    for kernels, copied in both(tables):
        start, count = 3, 150
        dots = torch._int_mm(copied.codes[start : start + count], coded.codes)
        kept = Pairs.empty(count * width, torch.device("cpu"))
        gradient = torch.zeros(kernels.gradient_blocks(), width, DIM)
        sums = ScoreSums(torch.device("cpu"))
        found = kernels.score_tile(
            copied,
            start,
            dots,
            coded.scales,
            coded.residuals,
            embeddings,
            own_pairs(),
            loss,
            lowest,
            cut,
            kept,
            gradient,
            sums,
        )
        results.append((kept.part(0, found), gradient.sum(dim=0), sums.values))
    (pairs, gradient, sums), (other_pairs, other_gradient, other_sums) = results
    assert torch.equal(pairs.rows, other_pairs.rows)
    assert torch.equal(pairs.samples, other_pairs.samples)
    torch.testing.assert_close(pairs.coefficients, other_pairs.coefficients, rtol=2e-4, atol=1e-6)
    torch.testing.assert_close(pairs.cosines, other_pairs.cosines, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, other_gradient, rtol=2e-4, atol=1e-5)
    torch.testing.assert_close(sums, other_sums, rtol=1e-4, atol=1e-6)
    assert len(pairs) >= 4, "own pairs are always kept"
    if lowest == -2.0:
        assert len(pairs) == 150 * BATCH


def test_dense_coefficients() -> None:
    cosines = torch.rand(60, BATCH, generator=generator()) * 2.2 - 1.1
    rows, samples = torch.tensor([3, 9, 9]), torch.tensor([0, 4, 5])
    results = []
    for kernels in (kernels_native, kernels_torch):
        values, sums = cosines.clone(), torch.zeros(7, dtype=torch.float64)
        kernels.dense_coefficients(values, (rows, samples), SFace(), 0.01, sums)
        results.append((values, sums))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-5)


def test_sample_levels() -> None:
    cosines = torch.rand(60, BATCH, generator=generator()) * 0.9 - 0.2
    cosines[4, 2] = kernels_torch.OWN_PAIR
    inverses, sample_inverses = torch.rand(60, generator=generator()), torch.rand(BATCH, generator=generator())
    results = []
    for kernels in (kernels_native, kernels_torch):
        values = cosines.clone()
        levels, sums = torch.zeros(40, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        kernels.sample_levels(values, inverses, sample_inverses, SFace(), 0.01, levels, sums)
        results.append((values, levels, sums))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(results[0][1].sum(dim=0), results[1][1].sum(dim=0), rtol=1e-4, atol=1e-6)
    assert (results[0][1][:, 0] - results[1][1][:, 0]).abs().max() <= 2, "a coefficient on a border may go either way"
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-5, atol=1e-5)
    assert results[0][1][:, 0].sum() == 60 * BATCH - 1


def test_pairs_of_many_tiles_stay_while_their_buffer_grows() -> None:
    """A tile's pairs are written behind those before it; a second step starts anew in the same memory."""
    workspace = Workspace(torch.device("cpu"))
    for step in range(2):
        buffer, expected = PairBuffer(workspace), []
        for tile, kept in enumerate((3, 0, 10, 200, 1)):
            room = buffer.room(210)
            assert len(room) == 210
            room.rows.copy_(torch.arange(210) + 1000 * tile + step)
            for values in (room.samples, room.coefficients, room.cosines):
                values.copy_(room.rows)
            expected += room.rows[:kept].tolist()
            buffer.keep(kept)
        taken = buffer.taken()
        buffer.room(10**6).rows.zero_()
        assert taken.rows.tolist() == expected
        for values in (taken.samples, taken.coefficients, taken.cosines):
            assert values.tolist() == expected
