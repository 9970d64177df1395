"""``pfc bench checkpoint``: what it prints and writes, and that it leaves nothing else, however it ends."""

import csv
import signal
import time
from pathlib import Path

import pytest
from commands import pfc, run_warm, running, torchrun

pytestmark = pytest.mark.integration

SMALL = (
    "--classes", "600", "--embedding-dim", "16", "--batch-size", "8", "--backbone", "mobilefacenet", "--warmup", "1",
)  # fmt: skip


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_table_of_what_was_measured(ranks: int, tmp_path: Path) -> None:
    words = ("bench", "checkpoint", *SMALL, "--repetitions", "2", "--csv", tmp_path / "rows.csv")
    ended = run_warm(pfc(*words) if ranks == 1 else torchrun(ranks, *words), cwd=tmp_path)
    assert ended.code == 0, ended.err
    heading = f"{ranks} rank, " if ranks == 1 else f"{ranks} ranks, "
    assert ended.out.startswith(heading)
    assert "stall/sync" in ended.out
    (row,) = csv.DictReader((tmp_path / "rows.csv").read_text().splitlines())
    assert (row["num_classes"], row["world_size"], row["repetitions"]) == ("600", str(ranks), "2")
    stall, synchronous = float(row["stall_seconds"]), float(row["sync_seconds"])
    assert stall > 0.0
    assert synchronous > 0.0
    # Backbone and centers at least, in whole.
    assert int(row["checkpoint_bytes"]) > 600 * 16 * 4 + 4_000_000
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", ".tmp"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ended_in_the_middle_it_clears_up(number: signal.Signals, tmp_path: Path) -> None:
    command = pfc("bench", "checkpoint", *SMALL, "--repetitions", "100000")
    with running(command, cwd=tmp_path, printed=tmp_path / "printed.txt") as process:
        end = time.monotonic() + 60
        while "round 2 of" not in (tmp_path / "printed.txt").read_text():
            assert process.poll() is None, (tmp_path / "printed.txt").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=60) == 1
    assert "pfc: error: interrupted; nothing half-done is left" in (tmp_path / "printed.txt").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"printed.txt", ".tmp"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--classes", "1"), "--classes must be at least 2, got 1"),
        (("--repetitions", "0"), "--repetitions must be at least 1, got 0"),
        (("--folder", "/no/such/folder"), "--folder /no/such/folder: no such folder; make it first"),
        (("--csv", "/no/such/folder/rows.csv"), "no such folder; make it first"),
        (("--classes", "100000000000"), "GiB of memory"),
    ],
)
def test_what_cannot_be_measured(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    ended = run_warm(pfc("bench", "checkpoint", *words), cwd=tmp_path)
    assert ended.code == 2
    (line,) = ended.error_lines
    assert told in line
