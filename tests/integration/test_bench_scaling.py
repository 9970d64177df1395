"""``pfc bench scaling`` measures real ranks, in pieces that one file takes up."""

import json
from pathlib import Path

import pytest
from commands import pfc, run_warm

pytestmark = pytest.mark.integration

DIM = 32
SMALL = ["--embedding-dim", str(DIM), "--fixed-classes", "5000", "--fixed-batch", "24"]
SMALL += ["--repetitions", "2", "--warmup", "2", "--json", "out.json"]


def test_pieces_are_measured_and_drawn_together(tmp_path: Path) -> None:
    pieces = [["--axes", "classes", "--classes", "3001", "30000000000"], ["--axes", "world", "--worlds", "1", "3"]]
    for piece in pieces:
        done = run_warm(pfc("bench", "scaling", *SMALL, *piece), cwd=tmp_path)
        assert done.code == 0, done.err
        if "classes" in piece:
            assert "left out: 30,000,000,000 classes" in done.out
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["point"]["axis"], row["point"]["world_size"]) for row in rows] == [
        ("classes", 1), ("world", 1), ("world", 3),
    ]  # fmt: skip
    for row in rows:
        assert 0 < row["wall_q1"] <= row["wall"] <= row["wall_q3"]
        assert row["compute"] > 0
        assert row["memory"] > 4 * row["point"]["num_classes"] // row["point"]["world_size"] * DIM
    alone, shared = rows[1:]
    batch = 24 // 3
    theory = batch * (4 * DIM + 8) + 4 * batch * DIM
    assert theory <= shared["bytes_moved"] <= theory + 2048, "and statistics"
    assert (alone["bytes_moved"], alone["waited"]) == (0, 0)
    assert shared["bare_exchange"] > 0
    assert shared["waited"] > 0
    other = run_warm(pfc("bench", "scaling", *SMALL, "--spread", "0.1"), cwd=tmp_path)
    assert (other.code, len(other.error_lines)) == (2, 1)
    assert "holds sizes at spread 0.06" in other.err
    drawn = pfc("bench", "scaling", "--draw", "--json", "out.json", "--picture", "out.svg", "--table", "out.md")
    done = run_warm(drawn, cwd=tmp_path)
    assert done.code == 0, done.err
    assert "**Over classes**" in done.out
    assert "**Over ranks, global batch kept**" in done.out
    assert (tmp_path / "out.md").read_text().strip() == done.out.strip()
    assert "<svg" in (tmp_path / "out.svg").read_text()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--classes", "0"], "--classes must be at least 1"),
        (["--worlds", "2", "--fixed-classes", "3"], "needs at least two"),
        (["--spread", "1"], "--spread 1.0"),
        (["--draw", "--json", "none.json"], "--draw"),
        (["--picture", "out.pdf"], "name it .png or .svg"),
        (["--table", "nowhere/out.md"], "no such folder"),
    ],
)
def test_bad_arguments(tmp_path: Path, wrong: list[str], message: str) -> None:
    done = run_warm(pfc("bench", "scaling", *SMALL, *wrong), cwd=tmp_path)
    assert (done.code, len(done.error_lines)) == (2, 1)
    assert message in done.err
