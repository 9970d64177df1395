"""Slopes of pfc bench scaling on data whose slopes are known; its file and its choice of sizes."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trainer.bench.geometry import effective_dimension
from trainer.bench.scaling_bench import needed_bytes, scaling_points
from trainer.bench.scaling_file import merged, read_rows, write_rows
from trainer.bench.scaling_fit import fit_affine, fit_power
from trainer.bench.scaling_problem import CLASSES, WORLD, LeftOut, ScalingEffort, ScalingPoint, ScalingRow
from trainer.bench.scaling_table import format_scaling
from trainer.bench.scaling_theory import collective_bytes, judge, pairs_exponent
from trainer.errors import ConfigError

pytestmark = pytest.mark.unit

EFFORT = ScalingEffort(repetitions=3, warmup=2, spread=0.06, tolerance=1e-3, seed=0)


def row(axis: str = CLASSES, *, classes: int = 1000, batch: int = 8, ranks: int = 1, cost: float = 1.0) -> ScalingRow:
    point = ScalingPoint(axis, classes, 64, batch, ranks, 1)
    return ScalingRow(
        point, EFFORT, cost, cost, cost, cost, 0.1, 0.2, 0.1, 1000, int(1e6 * cost), "screened", 3.5, 0.01
    )


def test_an_exact_power_law_is_found_exactly() -> None:
    xs = [1.0, 3.0, 10.0, 50.0]
    fit = fit_power(xs, [0.25 * x**1.5 for x in xs])
    assert fit is not None
    assert fit.slope == pytest.approx(1.5)
    assert fit.error == pytest.approx(0.0, abs=1e-7)
    assert fit.at(7.0) == pytest.approx(0.25 * 7.0**1.5)


def test_the_standard_error_is_that_of_least_squares() -> None:
    """Worked by hand: y = 1, 2, 2, 3 on x = -1.5 ... 1.5 has slope 0.6 and a residual sum of squares of 0.2."""
    fit = fit_power([math.exp(x) for x in (-1.5, -0.5, 0.5, 1.5)], [math.exp(y) for y in (1.0, 2.0, 2.0, 3.0)])
    assert fit is not None
    assert (fit.slope, fit.error) == pytest.approx((0.6, math.sqrt(0.2 / 2 / 5)))


def test_the_standard_error_is_the_spread_of_slopes() -> None:
    generator = np.random.default_rng(0)
    xs = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    fits = [fit_power(xs.tolist(), (xs * np.exp(generator.normal(0, 0.1, 5))).tolist()) for _ in range(2000)]
    slopes, squares = zip(*((fit.slope, fit.error**2) for fit in fits if fit is not None), strict=True)
    assert np.mean(slopes) == pytest.approx(1.0, abs=0.01)
    assert math.sqrt(np.mean(squares)) == pytest.approx(np.std(slopes), rel=0.06)


def test_fixed_cost_and_cost_per_unit() -> None:
    xs = [10.0, 1e3, 1e6]
    fit = fit_affine(xs, [5.0 + 0.25 * x for x in xs])
    assert fit is not None
    assert (fit.fixed, fit.each) == pytest.approx((5.0, 0.25))
    assert fit.spread == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(("xs", "ys"), [([1.0], [1.0]), ([2.0, 2.0], [1.0, 3.0]), ([1.0, 2.0], [0.0, 1.0])])
def test_no_line_where_there_is_none(xs: list[float], ys: list[float]) -> None:
    assert fit_power(xs, ys) is None
    assert fit_affine(xs, ys) is None


def test_worse_than_theory_is_said() -> None:
    sizes = (300_000, 1_000_000, 2_000_000, 4_000_000)
    for exponent, verdict in ((1.0, "as theory"), (1.3, "worse"), (0.5, "better")):
        rows = [row(classes=size, cost=(size / 1e5) ** exponent) for size in sizes]
        rows.append(row(classes=10_000, cost=5.0))  # its fixed cost: no part of the law
        judged = {each.law.figure: each for each in judge(rows)}
        assert judged["wall"].verdict == verdict
        assert (judged["wall"].first, judged["wall"].last) == (300_000, 4_000_000)
        fit = judged["wall"].fit
        assert fit is not None
        assert fit.slope == pytest.approx(exponent)
    ranks = [row(WORLD, ranks=each, cost=1.0) for each in (1, 2, 4)]
    assert {each.law.figure: each.verdict for each in judge(ranks)}["compute"] == "worse", "no rank works less"


def test_pairs_grow_as_the_tolerance_asks() -> None:
    """The exponent against the sums themselves: cosines as between random directions of 278 dimensions."""
    cosines = np.linspace(-0.9, 0.9, 400_001)
    density = (1 - cosines**2) ** ((effective_dimension(0.06, 512) - 3) / 2)
    density /= density.sum()
    coefficients = 64.0 / (1 + np.exp(-80 * (1.2 - np.arccos(cosines))))
    errors, pairs = np.cumsum(density * coefficients**2), density[::-1].cumsum()[::-1]
    found = []
    for classes in (1_000_000, 1_050_000):
        place = int(np.searchsorted(classes * errors, (1e-3 * 64.0) ** 2))
        found.append((classes * pairs[place], coefficients[place]))
    measured = math.log(found[1][0] / found[0][0]) / math.log(1.05)
    point = replace(row().point, embedding_dim=512)
    assert pairs_exponent(replace(row(), point=point, cut=float(found[0][1]))) == pytest.approx(measured, abs=0.06)
    assert 1.7 < measured < 2.1


def test_bytes_by_theory() -> None:
    assert collective_bytes(256, 512) == 256 * (4 * 512 + 8) + 4 * 256 * 512


def test_ranks_share_the_global_batch() -> None:
    points = list(
        scaling_points(
            ["classes", "batch", "world"], classes=[10, 20], batches=[4], worlds=[1, 2, 3], embedding_dim=8,
            fixed_classes=50, fixed_batch=12, threads=2,
        )
    )  # fmt: skip
    assert [(each.axis, each.place) for each in points] == [
        ("classes", 10), ("classes", 20), ("batch", 4), ("world", 1), ("world", 2), ("world", 3),
    ]  # fmt: skip
    assert [each.batch for each in points[3:]] == [12, 6, 4]
    assert {each.threads for each in points[3:]} == {1}
    assert needed_bytes(points[0]) < needed_bytes(replace(points[0], num_classes=10**9))


def test_pieces_add_up_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    assert read_rows(path) == []
    first = [row(classes=100), row(classes=10)]
    write_rows(path, merged([], first))
    again = row(classes=100, cost=2.0)
    write_rows(path, merged(read_rows(path), [again, row(WORLD, ranks=2)]))
    assert read_rows(path) == [first[1], again, row(WORLD, ranks=2)]


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 1}', '{"version": 1, "rows": [{}]}', '{"version": 1, "rows": [3]}', "nonsense"]
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"out\.json.*name another file"):
        read_rows(path)


@pytest.mark.parametrize(("name", "value"), [("wall", "fast"), ("memory", 1.5), ("axis", "depth"), ("threads", True)])
def test_a_row_with_another_kind_of_value_is_refused(tmp_path: Path, name: str, value: object) -> None:
    values = row().to_dict()
    (values if name in values else values["point"])[name] = value
    path = tmp_path / "out.json"
    path.write_text(json.dumps({"version": 1, "rows": [values]}))
    with pytest.raises(ConfigError, match=r"name another file"):
        read_rows(path)


def test_the_table_tells_what_was_left_out() -> None:
    text = format_scaling([row()], [LeftOut(row(classes=4_000_000).point, "it needs 12 GiB")])
    assert "left out: 4,000,000 classes, D=64, B=8 a rank, 1 rank: it needs 12 GiB" in text
    assert "| 1,000 | 64 | 8 | 1 x 1 | 1.000 (1.000-1.000) |" in text
