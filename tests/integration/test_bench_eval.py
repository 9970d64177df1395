"""``pfc bench eval`` as a user types it, small."""

from pathlib import Path

import pytest
from commands import pfc, run_warm

pytestmark = pytest.mark.integration


def test_both_measurements_in_one_table(tmp_path: Path) -> None:
    small = ("--images", "10", "--image-size", "32", "--embedding-dim", "16", "--batch-size", "4", "--probes", "30")
    finished = run_warm(
        pfc("bench", "eval", *small, "--gallery", "500", "-k", "3", "--repetitions", "1", "--threads", "1",
            "--decoder", "cpu", "--device", "cpu", "--csv", "out.csv"),
        cwd=tmp_path,
    )  # fmt: skip
    assert finished.code == 0, finished.err
    assert "extraction, images" in finished.out
    assert "comparison, comparisons" in finished.out
    assert "(extrapolated, not measured)" in finished.out
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


def test_bad_options(tmp_path: Path) -> None:
    finished = run_warm(pfc("bench", "eval", "--gallery", "0"), cwd=tmp_path)
    assert finished.code == 2
    assert "--gallery must be at least 1" in finished.error_lines[0]
