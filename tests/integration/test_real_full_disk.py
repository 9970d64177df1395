"""A disk that is really full, in the middle of a run and at its end, where checkpoints are written beside the training.

Three checkpoints in a row meet it: with no byte left, with room for half a file, with room for the numbers and none
for their description. Then there is room again.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkpoint_reading import assert_identical, everything
from commands import ROOT, run
from full_disk_runs import EVERY, FIRST, HALF_A_FILE, NO_BYTE, NO_FILE, ROOM, STEPS, Case
from small_disk import PRIVATE, missing

from trainer.checkpoint import complete_checkpoints

pytestmark = [pytest.mark.integration, pytest.mark.skipif(missing() != "", reason=missing())]

FAILED = (NO_BYTE, HALF_A_FILE, NO_FILE)
LAST = f"checkpoints/step_{STEPS:08d}"
AGAIN = "make room and run the same command again"
MEANWHILE = [Case(1, True, "meanwhile"), Case(2, True, "meanwhile"), Case(1, False, "meanwhile")]
AT_THE_END = [Case(1, True, "at the end"), Case(2, True, "at the end")]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what is left of all runs."""
    folder = tmp_path_factory.mktemp("disks")
    script = ROOT / "tests" / "support" / "full_disk_runs.py"
    ended = run([*PRIVATE, sys.executable, str(script), str(folder)], cwd=folder, deadline_seconds=240)
    assert ended.code == 0, ended.err
    return folder


def undisturbed(played: Path, case: Case) -> Path:
    return played / Case(case.ranks, True, "never").name / "out"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("case", MEANWHILE, ids=lambda case: case.name)
def test_the_run_goes_on_and_says_so(case: Case, played: Path) -> None:
    folder = played / case.name
    printed = (folder / "printed_0.txt").read_text()
    assert json.loads((folder / "codes.json").read_text()) == [[0] * case.ranks], printed
    assert "Traceback" not in printed

    told = [line for line in printed.splitlines() if line.startswith("warning: no checkpoint of step ")]
    for step, line in zip(FAILED, told, strict=True):
        file = ".checkpoint.json" if step == NO_FILE else "rank_0000.bin"
        assert line.startswith(f"warning: no checkpoint of step {step}: /")
        assert f"/.step_{step:08d}.draft/{file}" in line
        assert "No space left on device; earlier ones are intact, the run goes on and tries again" in line
    assert "warning: lines of metrics.jsonl wait in memory: No space left on device; the run goes on" in printed

    for rank in range(case.ranks):
        failures = [
            line
            for line in lines_of(folder / f"out/logs/rank_{rank:04d}.jsonl")
            if line["event"] == "checkpoint failed"
        ]
        assert [(line["step"], line["reason"], line["level"]) for line in failures] == [
            (step, "disk_full", "error") for step in FAILED
        ]
        metrics = (folder / f"metrics_{rank}.txt").read_text().splitlines()
        labels = f'job="out",rank="{rank}"'
        assert f'pfc_checkpoint_failures_total{{{labels},reason="disk_full"}} {len(FAILED)}.0' in metrics
        assert f"pfc_last_checkpoint_step{{{labels}}} {FIRST}.0" in metrics


@pytest.mark.parametrize("case", MEANWHILE, ids=lambda case: case.name)
def test_the_old_checkpoint_stays_and_nothing_of_the_failed_ones(case: Case, played: Path) -> None:
    notes = lines_of(played / case.name / "notes.jsonl")
    assert [note["step"] for note in notes] == list(range(EVERY, STEPS + 1, EVERY))
    assert all(note["whole"] for note in notes)
    first = [f"step_{FIRST:08d}"]
    assert [note["names"] for note in notes] == [[], first, first, first, first, [*first, f"step_{ROOM:08d}"]]


@pytest.mark.parametrize("case", MEANWHILE, ids=lambda case: case.name)
def test_lines_that_waited_are_written_when_there_is_room(case: Case, played: Path) -> None:
    folder = played / case.name
    waited = {note["step"]: note["journal_waits"] for note in lines_of(folder / "notes.jsonl")}
    assert waited[HALF_A_FILE], "since the disk was filled to the last byte"
    assert not waited[STEPS]
    every_step = list(range(1, STEPS + 1))
    assert [line["step"] for line in lines_of(folder / "out/metrics.jsonl")] == every_step
    for rank in range(case.ranks):
        log = lines_of(folder / f"out/logs/rank_{rank:04d}.jsonl")
        assert [line["step"] for line in log if line["event"] == "step"] == every_step


@pytest.mark.parametrize("case", MEANWHILE + AT_THE_END, ids=lambda case: case.name)
def test_it_learns_what_the_undisturbed_run_learns(case: Case, played: Path) -> None:
    found = played / case.name / "out"
    assert_identical(everything(found / LAST), everything(undisturbed(played, case) / LAST))
    curves = [
        [(line["step"], line["loss"]) for line in lines_of(output / "metrics.jsonl")]
        for output in (found, undisturbed(played, case))
    ]
    assert curves[0] == curves[1]
    assert not list(found.rglob(".*")), "nothing half-written is left"


@pytest.mark.parametrize("case", AT_THE_END, ids=lambda case: case.name)
def test_the_last_checkpoint_does_not_fit(case: Case, played: Path) -> None:
    folder = played / case.name
    full, still_full, room = json.loads((folder / "codes.json").read_text())
    assert full == still_full == [1] * case.ranks
    assert room == [0] * case.ranks
    first, second = ((folder / f"printed_{number}.txt").read_text() for number in (0, 1))
    assert "Traceback" not in first + second

    told = [line for line in first.splitlines() if line.startswith("pfc: error: ")]
    assert len(told) == case.ranks, "each rank says one line"
    for line in told:
        assert f"/.step_{STEPS:08d}.draft/rank_0000.bin: No space left on device: the checkpoint is not written" in line
        assert line.endswith(f"earlier ones are intact; {AGAIN}")

    (own,) = (line for line in second.splitlines() if line.startswith("pfc: error: ") and ": rank 0 (" not in line)
    assert "/out/run.toml: No space left on device" in own
    assert own.endswith(AGAIN)
    assert second.count("pfc: error: ") == case.ranks
    kept = [f"step_{step:08d}" for step in range(STEPS - 3 * EVERY, STEPS, EVERY)]
    assert json.loads((folder / "left.json").read_text()) == kept


def test_this_machines_own_disk_is_not_touched(played: Path) -> None:
    """The small disks were the runs' own: here their places are empty."""
    mounted = subprocess.run(["mount"], capture_output=True, text=True, timeout=20, check=True).stdout
    assert str(played) not in mounted
    assert not list((played / MEANWHILE[0].name / "disk").iterdir())
    assert complete_checkpoints(undisturbed(played, MEANWHILE[0]))
