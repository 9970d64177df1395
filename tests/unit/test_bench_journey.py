"""What pfc bench journey notices: lost and repeated steps, commands that fail or take too long, memory of processes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.bench.journey_log import journal, tenths
from trainer.bench.phase_command import phase_command
from trainer.bench.process_memory import MemoryWatch, descendants
from trainer.errors import ConfigError, PeerFailedError

pytestmark = [pytest.mark.unit, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

HOLD = """
import subprocess, sys
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "child", ""], stdout=subprocess.PIPE)
    child.stdout.readline()
else:
    held = bytearray(b"x") * (200 << 20)
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("steps", [[1, 2, 4], [1, 2, 2, 3, 4], [1, 2, 3], [2, 1, 3, 4]])
def test_a_step_lost_or_repeated_is_noticed(tmp_path: Path, steps: list[int]) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in [1, 2, 3, 4]))
    assert [line["step"] for line in journal(tmp_path, 4)] == [1, 2, 3, 4]
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in steps))
    with pytest.raises(PeerFailedError, match="each of 4 steps once"):
        journal(tmp_path, 4)


def test_first_and_last_tenth() -> None:
    assert tenths([{"loss": float(value)} for value in range(30)], "loss") == (1.0, 28.0)


def test_a_grandchild_counts() -> None:
    command = [sys.executable, "-c", HOLD, "parent", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        child = next(pid for pid in descendants(process.pid) if pid != process.pid)
        with MemoryWatch(process.pid) as watch:
            watch.look()
        process.stdin.close()
    assert watch.peak_resident[child] > 200 << 20 > watch.peak_resident[process.pid]
    assert watch.peak_proportional > 200 << 20
    assert watch.peak_proportional <= sum(watch.peak_resident.values())


def test_a_command_that_takes_too_long_is_killed() -> None:
    with (
        pytest.raises(PeerFailedError, match="waiting was killed"),
        phase_command(
            "waiting", ["timeit", "-n1", "-r1", "import time; time.sleep(600)"], threads=1, end=0.0
        ) as command,
    ):
        command.finish()
    assert command.process.returncode == -9


def test_a_command_that_fails_is_told() -> None:
    end = time.monotonic() + 60
    with (
        pytest.raises(ConfigError, match="checking failed: exit code 2"),
        phase_command(
            "checking", ["trainer", "check", "none.toml", "--world-size", "1"], threads=1, end=end
        ) as command,
    ):
        command.finish()
    with (
        pytest.raises(PeerFailedError, match="leaving came to no end"),
        phase_command("leaving", ["platform"], threads=1, end=end, captured=True) as command,
    ):
        command.wait_for(lambda: False, "end")
