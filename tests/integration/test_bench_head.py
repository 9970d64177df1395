"""``pfc bench head`` measures every method on one and on two ranks."""

import csv
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
    "--threads",
    "1",
]


def test_one_rank_measures_all_methods(tmp_path: Path) -> None:
    done = run(pfc("bench", "head", *SMALL, "--csv", "out.csv", "--png", "out.png"), cwd=tmp_path)
    assert done.code == 0, done.err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [(row["num_classes"], row["method"]) for row in rows] == [
        (classes, method)
        for classes in ("301", "650")
        for method in ("sface", "sface-plain-torch", "cosface", "cosface-0.1")
    ]
    for row in rows:
        assert float(row["ratio_min"]) <= float(row["ratio"]) <= float(row["ratio_max"])
        assert float(row["seconds"]) > 0
    assert len(done.out.strip().splitlines()) == 1 + len(rows)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_two_ranks_count_what_they_move(tmp_path: Path) -> None:
    done = run(torchrun(2, "bench", "head", *SMALL, "--methods", "sface", "--csv", "out.csv"), cwd=tmp_path)
    assert done.code == 0, done.err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    moved = {int(row["bytes_moved"]) for row in rows}
    assert len(moved) == 1, "what travels does not grow with the number of classes"
    batch, dim = 9, 16
    assert moved.pop() >= batch * (4 * dim + 8) + 4 * batch * dim


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--spread", "0"], "--spread 0.0"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--csv", "nowhere/out.csv"], "no such folder"),
        (["--classes", "1"], "every rank needs at least two"),
    ],
)
def test_bad_arguments(tmp_path: Path, wrong: list[str], message: str) -> None:
    done = run(pfc("bench", "head", *SMALL, *wrong), cwd=tmp_path)
    assert (done.code, len(done.error_lines)) == (2, 1)
    assert message in done.err
