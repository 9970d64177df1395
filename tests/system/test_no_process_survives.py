"""The tests' own runner: a command's descendants end with it, whatever sessions they moved to."""

import subprocess
import time
from pathlib import Path

import pytest
from commands import MARK, marked, running

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc to find processes in"),
]

# Two generations in sessions of their own, as a launcher's workers and their helpers are; they hold the pipes open.
FAMILY = "setsid sh -c 'setsid sleep 600 & sleep 600' & echo started; sleep 600"


def mark_of(process: subprocess.Popen[str]) -> str:
    entries = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
    return next(entry.partition("=")[2] for entry in entries if entry.startswith(f"{MARK}="))


def sleepers(mark: str) -> list[int]:
    names = {number: Path(f"/proc/{number}/comm") for number in marked(mark)}
    return [number for number, name in names.items() if name.read_text() == "sleep\n"]


@pytest.mark.parametrize("launcher_dies_first", [False, True])
def test_descendants_in_other_sessions_are_killed(launcher_dies_first: bool, tmp_path: Path) -> None:
    with running(["sh", "-c", FAMILY], cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        mark, end = mark_of(process), time.monotonic() + 30
        while len(sleepers(mark)) < 3:
            assert time.monotonic() < end, marked(mark)
            time.sleep(0.01)
        if launcher_dies_first:
            process.kill()
            process.wait(timeout=30)
            assert marked(mark), "orphans live on"
    assert marked(mark) == []
