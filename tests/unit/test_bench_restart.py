"""What ``pfc bench restart`` refuses, reads and writes."""

import csv
import io
import os
import time
from pathlib import Path

import pytest

from trainer.bench.restart_bench import process_began
from trainer.bench.restart_log import ArrivingLines, RankEvents
from trainer.bench.restart_problem import PARTS, Restart, RestartEffort, RestartRow
from trainer.bench.restart_table import format_restart_rows, write_restart_csv
from trainer.cli import main
from trainer.pulse import BUILDING, JOINING, LOADING, OPENING, Pulse

pytestmark = pytest.mark.unit

EFFORT = RestartEffort(100_000, 512, 16, "mobilefacenet", 112, 2000, 2, 3, 5, 0)
ROW = RestartRow(EFFORT, 419_430_400, 0.75, 12.0, 11.5, 12.5, {part: n / 4 for n, part in enumerate(PARTS)})


def test_table_and_csv(tmp_path: Path) -> None:
    conditions, _, headings, cells = format_restart_rows([ROW]).splitlines()
    assert conditions.startswith("2 ranks, mobilefacenet at 112x112, D=512, batch 16 a rank, 2,000 images, 3 restarts")
    assert headings.split()[-4:] == ["first", "step", "usual", "step"]
    assert cells.split()[:4] == ["100,000", "400", "12.0", "(11.5-12.5)"]
    assert len(cells.split()) == 4 + len(PARTS) + 1
    write_restart_csv(tmp_path / "out.csv", [ROW])
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert row["total"] == "12.0"
    assert [float(row[f"{part}_seconds"]) for part in PARTS] == list(ROW.parts.values())
    assert row["world_size"] == "2"
    assert format_restart_rows([]) == "nothing was measured"


def test_the_whole_is_the_sum_of_its_parts() -> None:
    assert Restart(*(float(n) for n in range(9))).total == 36.0


def test_events_of_a_log_that_a_kill_has_torn(tmp_path: Path) -> None:
    log = RankEvents(tmp_path / "rank.jsonl")
    assert log.update() == []
    path = tmp_path / "rank.jsonl"
    path.write_text('{"event": "started", "time": "2026-01-02T03:04:05.5Z"}\n{"event": "st')
    (started,) = log.update()
    assert started["at"] % 60 == 5.5
    assert log.after(started, "step") is None
    with path.open("a") as file:
        file.write('{"event": "started", "time": "2026-01-02T03:05:05Z"}\n')  # continues the torn line
        file.write('{"event": "step", "step": 7, "time": "2026-01-02T03:06:05Z"}\n')
    assert [event["event"] for event in log.update()] == ["started", "step"]
    found = log.after(started, "step")
    assert found is not None
    assert found["step"] == 7


def test_lines_know_when_they_came() -> None:
    before = time.time()
    lines = ArrivingLines(io.StringIO("other\npfc: error: a\npfc launch: restart 1 of 2\n"))
    lines.join()
    first, second = lines.first_after(before, "pfc"), lines.first_after(before, "pfc launch: restart")
    assert first is not None
    assert second is not None
    assert before <= first <= second <= time.time()
    assert lines.first_after(time.time() + 1, "pfc") is None


def test_a_start_tells_what_it_was_made_of() -> None:
    ticks = iter(range(100))
    pulse = Pulse(lambda: float(next(ticks)))
    for phase in (JOINING, OPENING, BUILDING, LOADING):
        pulse.enter(phase)
    pulse.enter(LOADING)
    assert pulse.start_seconds() == {"joining": 1.0, "opening": 1.0, "building": 1.0, "loading": 2.0}


def test_when_a_process_began() -> None:
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    now = time.time()
    try:
        assert abs(process_began(child) - now) < 5.0
        assert process_began(os.getpid()) <= process_began(child)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ranks", "0"], "--ranks must be at least 1"),
        (["--classes", "3"], "--classes must be at least 4, got 3"),
        (["--images", "20"], "--images 20: a batch takes 32, draw more"),
        (["--classes", "50"], "draw fewer or raise --classes"),
        (["--folder", "nowhere"], "nowhere: no such folder"),
        (["--csv", "nowhere/out.csv"], "no such folder"),
    ],
)
def test_bad_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "restart", *arguments]) == 2
    assert message in capsys.readouterr().err
