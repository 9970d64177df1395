"""The benchmark's table, CSV and picture."""

import csv
import dataclasses
from pathlib import Path

import pytest

from trainer.bench.head_picture import short_count, write_picture
from trainer.bench.head_table import format_rows, write_csv
from trainer.bench.problem import Row, problems

pytestmark = pytest.mark.unit

SFACE = Row(
    method="sface",
    num_classes=1_000_000,
    embedding_dim=512,
    batch=256,
    spread=0.06,
    tolerance=1e-3,
    world_size=2,
    device="cpu",
    threads=1,
    repetitions=5,
    warmup=8,
    seed=0,
    seconds=1.25,
    seconds_q1=1.0,
    seconds_q3=1.5,
    product_seconds=2.5,
    ratio=0.5,
    ratio_q1=0.4,
    ratio_q3=0.6,
    mode="screened",
    active_pairs=21.5,
    cut=0.015,
    error=8.5e-4,
    center_dtype="float32",
    center_memory="device",
    centers_bytes=980 << 20,
    extra_bytes=500 << 20,
    extra_over_centers=0.51,
    extra_bytes_ever=600 << 20,
    bytes_moved=2048,
)
PRODUCT = dataclasses.replace(
    SFACE,
    method="product",
    spread=None,
    tolerance=None,
    mode=None,
    active_pairs=None,
    cut=None,
    error=None,
    extra_bytes=None,
    extra_over_centers=None,
    extra_bytes_ever=None,
    bytes_moved=0,
)


def test_table_says_how_it_was_measured_and_leaves_no_empty_cell() -> None:
    conditions, _, headings, product, sface = format_rows([PRODUCT, SFACE]).splitlines()
    assert conditions.startswith("2 ranks, 1 thread each")
    assert "5 repetitions after 8 warm-up steps" in conditions
    assert len(headings) == len(product) == len(sface)
    assert "0.50x (0.40-0.60)" in sface
    for cell in ("screened", "21.5", "8.5e-04", "500", "0.51x", "600", "0.001"):
        assert cell in sface.split()
    assert product.split().count("-") == 8
    assert format_rows([]) == "nothing was measured"


def test_the_type_and_place_of_the_centers_are_told() -> None:
    half = dataclasses.replace(SFACE, center_dtype="bfloat16", center_memory="host", centers_bytes=490 << 20)
    sface, other = format_rows([SFACE, half]).splitlines()[-2:]
    assert "float32" in sface.split() and "bfloat16, host" not in sface
    assert "bfloat16, host" in other and "490" in other.split()


def test_each_type_and_place_is_measured_where_they_mean_anything() -> None:
    found = list(
        problems(
            ["product", "sface", "cosface"],
            classes=[10],
            embedding_dims=[8],
            batches=[4],
            spreads=[0.06, 0.1],
            tolerances=[1e-3],
            center_dtypes=["float32", "bfloat16"],
            center_memories=["device", "host"],
        )
    )
    kept = [(each.method, each.spread, each.center_dtype, each.center_memory) for each in found]
    assert len(kept) == len(set(kept)) == 1 + 2 * 4 + 4
    assert [each for each in kept if each[0] == "product"] == [("product", 0.06, "float32", "device")]


def test_csv_holds_every_figure(tmp_path: Path) -> None:
    write_csv(tmp_path / "out.csv", [PRODUCT, SFACE])
    product, sface = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert set(sface) == {field.name for field in dataclasses.fields(Row)}
    assert (float(sface["error"]), int(sface["extra_bytes"])) == (8.5e-4, 500 << 20)
    assert (product["error"], product["spread"], product["mode"]) == ("", "", "")


@pytest.mark.parametrize("classes", [(1_000_000,), (10_000, 1_000_000)])
def test_picture_of_bars_or_curves(tmp_path: Path, classes: tuple[int, ...]) -> None:
    rows = [
        dataclasses.replace(row, num_classes=count, batch=batch)
        for row in (PRODUCT, SFACE, dataclasses.replace(SFACE, tolerance=1e-5, mode="dense"))
        for count in classes
        for batch in (128, 1024)
    ]
    write_picture(tmp_path / "out.png", rows)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_short_counts() -> None:
    assert [short_count(value) for value in (300, 1500, 10_000, 2_000_000)] == ["300", "1.5k", "10k", "2M"]
