"""``pfc bench step`` measures the loop and every part of its step, on one and on two ranks."""

import csv
import signal
import sys
import time
from pathlib import Path

import pytest
from commands import pfc, run_warm, running, torchrun

pytestmark = pytest.mark.integration

SMALL = [
    "--embedding-dim", "16", "--batch-size", "4", "--image-size", "32", "--repetitions", "2", "--steps", "1",
    "--warmup", "1", "--threads", "1",
]  # fmt: skip
PARTS = ["decode", "forward", "gather", "head", "backward", "exchange", "optimizer", "metrics"]
AMONG_RANKS = {"gather", "exchange"}


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def left(folder: Path) -> list[str]:
    return [path.name for path in (folder / ".tmp").glob("pfc-bench-*")]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_parts_cover_the_step(tmp_path: Path, ranks: int) -> None:
    command = ["bench", "step", *SMALL, "--classes", "301", "650", "--csv", "out.csv"]
    done = run_warm(pfc(*command) if ranks == 1 else torchrun(ranks, *command), cwd=tmp_path)
    assert done.code == 0, done.err
    rows = table(tmp_path / "out.csv")
    for classes in ("301", "650"):
        found = {row["figure"]: row for row in rows if row["num_classes"] == classes}
        assert list(found)[: len(PARTS)] == PARTS
        for part in PARTS:
            assert (float(found[part]["wall"]) > 0) == (ranks > 1 or part not in AMONG_RANKS), part
        for name, row in found.items():
            assert float(row["wall_q1"]) <= float(row["wall"]) <= float(row["wall_q3"]), name
        # Two rounds: medians are means, so the parts add up to the sums.
        whole = sum(float(found[part]["wall"]) for part in PARTS)
        assert float(found["sum_with_decode"]["wall"]) == pytest.approx(whole)
        assert float(found["sum"]["wall"]) == pytest.approx(whole - float(found["decode"]["wall"]))
        assert all(float(found[name]["wall"]) > 0 for name in ("step", "loaded_step", "told", "step_over_sum"))
        assert {row["world_size"] for row in found.values()} == {str(ranks)}
        assert found["step"]["head_modes"] == "dense"
    assert done.out.count("asked: <= 1.05x") == 2 * 2
    assert left(tmp_path) == []


def test_stopped_on_request_it_tells_what_it_has_and_leaves_nothing_behind(tmp_path: Path) -> None:
    endless = ["--classes", "301", "--repetitions", "1000"]
    with running(pfc("bench", "step", *SMALL, *endless), cwd=tmp_path, printed=tmp_path / "printed") as process:
        deadline = time.monotonic() + 60
        while "round 1 " not in (tmp_path / "printed").read_text():
            assert process.poll() is None, (tmp_path / "printed").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
    assert "step / sum:" in (tmp_path / "printed").read_text(), "the rounds that were over count"
    assert left(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that takes no files")
def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    done = run_warm(pfc("bench", "step", *SMALL, "--classes", "301", "--csv", "/proc/out.csv"), cwd=tmp_path)
    assert (done.code, len(done.error_lines)) == (1, 1), done.err
    assert left(tmp_path) == []


def test_bad_arguments_end_in_one_line(tmp_path: Path) -> None:
    done = run_warm(torchrun(2, "bench", "step", *SMALL, "--classes", "3"), cwd=tmp_path)
    assert done.code != 0
    assert {line.split(": ", 3)[3] for line in done.error_lines} == {"--classes 3: every rank needs at least two"}
    done = run_warm(pfc("bench", "step", "--batch-size", "1"), cwd=tmp_path)
    assert (done.code, len(done.error_lines)) == (2, 1)
    assert "--batch-size must be at least 2" in done.err
