"""``pfc bench restart`` kills a real run and measures its real restart."""

import csv
import signal
import time
import uuid
from pathlib import Path

import pytest
from commands import marked, pfc, ranks_of, run, running

from trainer.bench.restart_problem import PARTS

pytestmark = pytest.mark.integration


SMALL = ["--classes", "60", "--embedding-dim", "16", "--image-size", "32", "--batch-size", "4", "--images", "40"]
SMALL += ["--ranks", "1", "--repetitions", "1", "--checkpoint-steps", "2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nobody_trains_on_when_it_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    end = time.monotonic() + 60
    with running(pfc("bench", "restart", *SMALL), cwd=tmp_path, mark=mark) as process:
        while not ranks_of(mark):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(number)
        code = process.wait(timeout=30)
        while marked(mark):
            assert time.monotonic() < end, "the run outlives what it was started for"
            time.sleep(0.02)
    left = [path for path in tmp_path.iterdir() if path.name.startswith(".pfc-bench-")]
    if number == signal.SIGTERM:
        assert code == 1
        assert not left
    else:
        assert code == -signal.SIGKILL


def test_a_restart_is_measured_part_by_part(tmp_path: Path) -> None:
    done = run(pfc("bench", "restart", *SMALL, "--csv", "out.csv"), cwd=tmp_path)
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
