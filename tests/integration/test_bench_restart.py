"""``pfc bench restart`` kills a real run and measures its real restart."""

import csv
from pathlib import Path

import pytest
from commands import pfc, run

from trainer.bench.restart_problem import PARTS

pytestmark = pytest.mark.integration


def test_a_restart_is_measured_part_by_part(tmp_path: Path) -> None:
    small = ["--classes", "60", "--embedding-dim", "16", "--image-size", "32", "--batch-size", "4", "--images", "40"]
    options = [*small, "--ranks", "1", "--repetitions", "1", "--checkpoint-steps", "2", "--csv", "out.csv"]
    done = run(pfc("bench", "restart", *options), cwd=tmp_path)
    assert done.code == 0, done.err
    assert "60 classes: restart 1 of 1 took " in done.err
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    parts = [float(row[f"{part}_seconds"]) for part in PARTS]
    assert all(seconds > -0.02 for seconds in parts), "a process's beginning is known to a hundredth"
    assert sum(parts) == pytest.approx(float(row["total"]))
    assert float(row["imports_seconds"]) > 0.1
    assert int(row["checkpoint_bytes"]) > 1 << 20
    assert len(done.out.strip().splitlines()) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp", "out.csv"], "the run itself is gone"
