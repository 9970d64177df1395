"""``pfc bench head`` measures every method on one and on two ranks."""

import csv
import math
import sys
from pathlib import Path

import pytest
from commands import pfc, run, torchrun

pytestmark = pytest.mark.integration

SMALL = [
    "--classes",
    "301",
    "650",
    "--embedding-dim",
    "16",
    "--batch-size",
    "9",
    "--repetitions",
    "2",
    "--warmup",
    "3",
    "--threads",
    "1",
]
ONE_EACH = ("sface-all-active", "sface-plain-torch", "cosface", "cosface-0.1")


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_one_rank_measures_all_methods(tmp_path: Path) -> None:
    several = ["--spread", "0.25", "0.3", "--tolerance", "1e-3", "1e-5"]
    done = run(pfc("bench", "head", *SMALL, *several, "--csv", "out.csv", "--png", "out.png"), cwd=tmp_path)
    assert done.code == 0, done.err
    rows = table(tmp_path / "out.csv")
    assert [(row["num_classes"], row["method"]) for row in rows] == [
        (classes, method) for classes in ("301", "650") for method in ("product", *["sface"] * 4, *ONE_EACH)
    ]
    for row in rows:
        assert 0 < float(row["seconds_q1"]) <= float(row["seconds"]) <= float(row["seconds_q3"])
        assert float(row["ratio_q1"]) <= float(row["ratio"]) <= float(row["ratio_q3"])
        assert (row["repetitions"], row["warmup"]) == ("2", "3")
        if row["method"] == "sface":
            assert row["mode"]
            assert math.isfinite(float(row["error"]))
        if row["method"] == "sface-all-active":
            assert float(row["active_pairs"]) == int(row["num_classes"]) - 1
    tried = [(row["spread"], row["tolerance"]) for row in rows[:9] if row["method"] == "sface"]
    assert tried == [("0.25", "0.001"), ("0.25", "1e-05"), ("0.3", "0.001"), ("0.3", "1e-05")]
    assert len(done.out.strip().splitlines()) == 3 + len(rows)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_two_ranks_count_what_they_move(tmp_path: Path) -> None:
    methods = ["--methods", "product", "sface", "sface-plain-torch"]
    done = run(torchrun(2, "bench", "head", *SMALL, *methods, "--csv", "out.csv"), cwd=tmp_path)
    assert done.code == 0, done.err
    rows = table(tmp_path / "out.csv")
    assert [(row["method"], row["world_size"]) for row in rows] == [("product", "2"), ("sface", "2")] * 2
    moved = {int(row["bytes_moved"]) for row in rows if row["method"] == "sface"}
    assert len(moved) == 1, "what travels does not grow with the number of classes"
    batch, dim = 9, 16
    assert moved.pop() >= batch * (4 * dim + 8) + 4 * batch * dim
    assert done.out.count("skipped sface-plain-torch") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_counts_what_the_optimizer_keeps_and_not_the_yardstick(tmp_path: Path) -> None:
    """In a process of its own: what an allocator keeps from earlier work is no part of the figure."""
    size = ["--classes", "16411", "--embedding-dim", "512", "--repetitions", "2", "--warmup", "2", "--threads", "1"]
    for method, batch in (("sface-plain-torch", 5), ("product", 1024)):
        out = f"{method}.csv"
        command = pfc("bench", "head", *size, "--methods", method, "--batch-size", str(batch), "--csv", out)
        done = run(command, cwd=tmp_path)
        assert done.code == 0, done.err
    (plain,), (product,) = table(tmp_path / "sface-plain-torch.csv"), table(tmp_path / "product.csv")
    centers = 4 * 16_411 * 512
    assert float(plain["extra_over_centers"]) == int(plain["extra_bytes"]) / centers
    assert 5.0 < float(plain["extra_over_centers"]) < 8.0, "unit centers, their gradients, momentum"
    assert int(plain["extra_bytes_ever"]) >= int(plain["extra_bytes"])
    assert int(product["extra_bytes"]) == pytest.approx(4 * 16_411 * 1024, rel=0.2), "its own output, once"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--spread", "0.06", "0"], "--spread 0.0"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--warmup", "0"], "--warmup must be at least 1"),
        (["--tolerance", "1e-3", "1"], "--tolerance 1.0"),
        (["--csv", "nowhere/out.csv"], "no such folder"),
        (["--classes", "1"], "every rank needs at least two"),
    ],
)
def test_bad_arguments(tmp_path: Path, wrong: list[str], message: str) -> None:
    done = run(pfc("bench", "head", *SMALL, *wrong), cwd=tmp_path)
    assert (done.code, len(done.error_lines)) == (2, 1)
    assert message in done.err
