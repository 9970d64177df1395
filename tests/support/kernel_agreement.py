"""Kernels against PyTorch's on the CPU, function by function, on rows at rest, in motion, zero, huge and tiny."""

import copy
from dataclasses import dataclass, fields, replace
from types import ModuleType

import pytest
import torch

from partial_fc import SFace, kernels_torch
from partial_fc.coded_batch import CodedBatch
from partial_fc.pairs import Pairs, ScoreSums
from partial_fc.row_tables import Motion, RowTables
from partial_fc.stochastic_rounding import Rounding

ROWS, DIM, BATCH, SLOTS, NOW, LONGEST = 203, 37, 21, 90, 50, 40
MOTION = Motion(rate=0.1, momentum_factor=0.9, reach=0.9, patient_reach=1.1, rounding=2.0**-23, longest=LONGEST)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def make_tables(dtype: torch.dtype = torch.float32) -> RowTables:
    """Of rows at rest and in motion; bfloat16 ones are of a shard in the middle of the classes."""
    draw = generator()
    weights = torch.randn(ROWS, DIM, generator=draw)
    weights[7], weights[8], weights[9] = 0.0, weights[8] * 1e6, weights[9] * 1e-6
    result = RowTables.around(weights.to(dtype), norm_floor=1e-12, calm=0.004)
    result.rounding = Rounding(0x8765432112345678, first_class=1_000_000)
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
    kernels_torch.encode_rows(result, 0, ROWS)
    return result


def assert_same(found: RowTables, expected: RowTables) -> None:
    """In bfloat16, an update whose float32 value differs in its last bit may be rounded the other way: hardly ever."""
    alike = torch.ones(ROWS, dtype=torch.bool)
    if found.weights.dtype == torch.bfloat16:
        other = found.weights != expected.weights
        assert other.sum() <= 2
        alike = ~other.any(dim=1)
        steps = found.weights[other].view(torch.int16).int() - expected.weights[other].view(torch.int16).int()
        assert (steps.abs() <= 1).all()
    slots = expected.slots[alike & (expected.slots >= 0)].long()
    for field in fields(RowTables):
        ours, theirs = getattr(found, field.name), getattr(expected, field.name)
        if isinstance(ours, torch.Tensor) and len(ours) in (ROWS, SLOTS):
            ours, theirs = (each[alike if len(each) == ROWS else slots] for each in (ours, theirs))
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


def moved(tables: RowTables, device: torch.device) -> RowTables:
    """A copy of all its arrays on ``device``."""
    arrays = {field.name: getattr(tables, field.name) for field in fields(RowTables)}
    there = {name: value.to(device, copy=True) for name, value in arrays.items() if isinstance(value, torch.Tensor)}
    return replace(tables, **there)


@dataclass(frozen=True)
class Agreement:
    """``kernels`` on ``device`` do what kernels_torch does on the CPU."""

    kernels: ModuleType
    device: torch.device
    dtype: torch.dtype = torch.float32

    def both(self, tables: RowTables) -> list[tuple[ModuleType, RowTables]]:
        return [(self.kernels, moved(tables, self.device)), (kernels_torch, copy.deepcopy(tables))]

    def of_gather_unit(self, rows: torch.Tensor | None) -> None:
        found = []
        for kernels, tables in self.both(make_tables(self.dtype)):
            count, device = 90 if rows is None else len(rows), tables.weights.device
            unit, inverse = torch.empty(count, DIM, device=device), torch.empty(count, device=device)
            kernels.gather_unit(tables, None if rows is None else rows.to(device), 5, count, unit, inverse)
            found.append((unit.cpu(), inverse.cpu()))
        torch.testing.assert_close(*(unit for unit, _ in found))
        torch.testing.assert_close(*(inverse for _, inverse in found))

    def of_encode_rows(self) -> None:
        (_, tables), (_, plain) = self.both(make_tables(self.dtype))
        assert tables.codes is not None
        tables.codes.zero_()
        for start, count in ((0, 150), (150, ROWS - 150)):
            self.kernels.encode_rows(tables, start, count)
        found = moved(tables, torch.device("cpu"))
        assert_same(found, plain)
        unit, inverse = torch.empty(ROWS, DIM), torch.empty(ROWS)
        kernels_torch.gather_unit(found, None, 0, ROWS, unit, inverse)
        residual = (unit.double() - found.scales[:, None].double() * found.codes[:, :DIM].double()).norm(dim=1)
        assert (residual <= found.slack.double()).all()
        assert found.slack.max() < 0.05

    def of_update_rows(self, *, with_pairs: bool) -> None:
        rows, pairs, offsets = random_pairs()
        before, results = make_tables(self.dtype), []
        for kernels, tables in self.both(before):
            here = tables.weights.device
            if with_pairs:
                some = pairs_on(pairs, here)
                kernels.update_rows(tables, rows.to(here), some, offsets.to(here), unit_embeddings().to(here), MOTION)
            else:
                moving = (tables.slots >= 0).nonzero().squeeze(1)
                kernels.update_rows(tables, moving, None, None, tables.momentum, MOTION)
            results.append(moved(tables, torch.device("cpu")))
        assert_same(*results)
        assert not torch.equal(results[0].weights, before.weights)

    def of_update_dense(self) -> None:
        sums = torch.randn(120, DIM, generator=generator())
        results = []
        for kernels, tables in self.both(make_tables(self.dtype)):
            kernels.update_dense(tables, 40, sums.to(tables.weights.device), MOTION)
            results.append(moved(tables, torch.device("cpu")))
        assert_same(*results)

    def of_settle_rows(self, rest: float) -> None:
        results = []
        for kernels, tables in self.both(make_tables(self.dtype)):
            moving = (tables.slots >= 0).nonzero().squeeze(1)[:50]
            kernels.settle_rows(tables, moving, rest, MOTION)
            results.append(moved(tables, torch.device("cpu")))
        assert_same(*results)

    def of_screening(self, lowest: float, cut: float) -> None:
        results = [
            screened(kernels, tables, lowest, cut, start=start, count=count)
            for start, count in ((3, 150), (0, ROWS))
            for kernels, tables in self.both(make_tables(self.dtype))
        ]
        for found, expected in (results[:2], results[2:]):
            (pairs, gradient, sums), (other_pairs, other_gradient, other_sums) = found, expected
            assert torch.equal(pairs.rows, other_pairs.rows)
            assert torch.equal(pairs.samples, other_pairs.samples)
            torch.testing.assert_close(pairs.coefficients, other_pairs.coefficients, rtol=2e-4, atol=1e-6)
            torch.testing.assert_close(pairs.cosines, other_pairs.cosines, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(gradient, other_gradient, rtol=2e-4, atol=1e-4)
            torch.testing.assert_close(sums, other_sums, rtol=1e-4, atol=1e-6)
            assert len(pairs) >= 4, "own pairs are always kept"
        if lowest == -2.0:
            assert len(results[0][0]) == 150 * BATCH

    def of_dense_coefficients(self) -> None:
        cosines = torch.rand(60, BATCH, generator=generator()) * 2.2 - 1.1
        own = torch.tensor([3, 9, 9]), torch.tensor([0, 4, 5])
        results = []
        for kernels, here in ((self.kernels, self.device), (kernels_torch, torch.device("cpu"))):
            values, sums = cosines.to(here, copy=True), torch.zeros(7, dtype=torch.float64, device=here)
            kernels.dense_coefficients(values, (own[0].to(here), own[1].to(here)), SFace(), 0.01, sums)
            results.append((values.cpu(), sums.cpu()))
        torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-5)

    def of_sample_levels(self) -> None:
        cosines = torch.rand(60, BATCH, generator=generator()) * 0.9 - 0.2
        cosines[4, 2] = kernels_torch.OWN_PAIR
        inverses, sample_inverses = torch.rand(60, generator=generator()), torch.rand(BATCH, generator=generator())
        results = []
        for kernels, here in ((self.kernels, self.device), (kernels_torch, torch.device("cpu"))):
            values, both = cosines.to(here, copy=True), (inverses.to(here), sample_inverses.to(here))
            levels = torch.zeros(40, 4, dtype=torch.float64, device=here)
            sums = torch.zeros(3, dtype=torch.float64, device=here)
            kernels.sample_levels(values, *both, SFace(), 0.01, levels, sums)
            results.append((values.cpu(), levels.cpu(), sums.cpu()))
        (values, levels, sums), (other_values, other_levels, other_sums) = results
        torch.testing.assert_close(values, other_values, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(levels.sum(dim=0), other_levels.sum(dim=0), rtol=1e-4, atol=1e-6)
        assert (levels[:, 0] - other_levels[:, 0]).abs().max() <= 2, "a coefficient on a border may go either way"
        torch.testing.assert_close(sums, other_sums, rtol=1e-5, atol=1e-5)
        assert levels[:, 0].sum() == 60 * BATCH - 1


def pairs_on(pairs: Pairs, device: torch.device) -> Pairs:
    return Pairs(*(getattr(pairs, field.name).to(device) for field in fields(Pairs)))


def own_pairs() -> tuple[torch.Tensor, torch.Tensor]:
    """Two samples share a center; one owns the zero row."""
    return torch.tensor([7, 30, 30, 120]), torch.tensor([2, 1, 20, 0])


def screened(
    kernels: ModuleType, tables: RowTables, lowest: float, cut: float, *, start: int, count: int
) -> tuple[Pairs, torch.Tensor, torch.Tensor]:
    """Pairs by row and sample, the embeddings' gradient and the sums of one tile, on the CPU."""
    here = tables.weights.device
    embeddings, own = unit_embeddings().to(here), tuple(each.to(here) for each in own_pairs())
    coded = CodedBatch.of(embeddings, tables.code_width)
    width = len(coded.scales)
    gradient = torch.zeros(kernels.gradient_blocks(), width, DIM, device=here)
    sums = ScoreSums(here)
    if kernels.FUSED:
        pairs = kernels.screen_tile(tables, start, count, coded, embeddings, own, SFace(), lowest, cut, gradient, sums)
    else:
        assert tables.codes is not None
        dots = torch._int_mm(tables.codes[start : start + count], coded.codes)
        room = Pairs.empty(count * width, here)
        number = kernels.score_tile(
            tables, start, dots, coded.scales, coded.residuals, embeddings, own, SFace(), lowest, cut, room, gradient,
            sums,
        )  # fmt: skip
        pairs = room.part(0, number)
    assert torch.equal(pairs.rows, pairs.rows.sort().values)
    order = torch.argsort(pairs.rows * width + pairs.samples)
    pairs = Pairs(*(getattr(pairs, field.name)[order] for field in fields(Pairs)))
    return pairs_on(pairs, torch.device("cpu")), gradient.sum(dim=0).cpu(), sums.values.cpu()


class AgreementTests:
    """Every case; a subclass says of which kernels."""

    agreement: Agreement

    @pytest.mark.parametrize("rows", [None, torch.tensor([200, 7, 8, 9, 3])])
    def test_gather_unit(self, rows: torch.Tensor | None) -> None:
        self.agreement.of_gather_unit(rows)

    def test_encode_rows_and_its_bound(self) -> None:
        self.agreement.of_encode_rows()

    @pytest.mark.parametrize("with_pairs", [True, False])
    def test_update_rows(self, with_pairs: bool) -> None:
        self.agreement.of_update_rows(with_pairs=with_pairs)

    def test_update_dense(self) -> None:
        self.agreement.of_update_dense()

    @pytest.mark.parametrize("rest", [0.0, 0.9])
    def test_settle_rows(self, rest: float) -> None:
        self.agreement.of_settle_rows(rest)

    @pytest.mark.parametrize(("lowest", "cut"), [(0.1, 1e-3), (-2.0, 0.0), (2.0, 1e9)])
    def test_screening(self, lowest: float, cut: float) -> None:
        self.agreement.of_screening(lowest, cut)

    def test_dense_coefficients(self) -> None:
        self.agreement.of_dense_coefficients()

    def test_sample_levels(self) -> None:
        self.agreement.of_sample_levels()
