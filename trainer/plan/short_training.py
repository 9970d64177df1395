"""Real short trainings on this machine, watched from outside."""

import json
import math
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import config_from
from trainer.plan.local_ranks import local_ranks, outcome

DEADLINE_SECONDS = 240.0
UNTOLD = 2  # steps of a line of metrics.jsonl; the first ones: page faults, and what libraries do once


@dataclass(frozen=True)
class Watched:
    """lines: of ``metrics.jsonl``, each the mean of ``UNTOLD`` steps. Of rank 0, peak: largest resident size, files:
    of which pages of files, bytes; processor: its seconds in a step, NaN where too few lines came.
    """

    lines: list[dict[str, Any]]
    peak: float
    files: float
    processor: float


def values_of(records: Path, identities: int, batch: int, steps: int, output: Path) -> dict[str, Any]:
    """The tables of a training of ``UNTOLD`` + ``steps`` steps, without checkpoints."""
    return {
        "run": {"output": str(output), "device": "cpu"},
        "data": {"records": str(records), "num_identities": identities, "batch_size": batch},
        "train": {"steps": UNTOLD + steps},
        "backbone": {},
        "checkpoint": {"every_steps": 0},
        "log": {"every_steps": UNTOLD},
    }


def watched_training(values: dict[str, Any], ranks: int, folder: Path) -> Watched:
    """Run it in ``folder``. Raises ConfigError where it fails or takes longer than ``DEADLINE_SECONDS``."""
    path = folder / "run.toml"
    path.write_text(config_from(values, "a short training").to_toml(), encoding="utf-8")
    metrics = Path(values["run"]["output"]) / "metrics.jsonl"
    peak, files, spent = 0.0, 0.0, dict[int, float]()
    with local_ranks(["trainer", "train", str(path)], ranks) as processes:

        def watch() -> None:
            nonlocal peak, files
            with suppress(OSError, ValueError, IndexError):
                # fields after the name in parentheses: user and system time are the 12th and 13th
                counts = Path(f"/proc/{processes[0].pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                ticks = int(counts[11]) + int(counts[12])
                spent.setdefault(metrics.read_text(encoding="utf-8").count("\n"), ticks / os.sysconf("SC_CLK_TCK"))
            peak = max(peak, _status(processes[0], "VmHWM"))
            files = max(files, _status(processes[0], "RssFile"))

        outcome(processes, deadline_seconds=DEADLINE_SECONDS, watch=watch)
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    # The last line comes with the end of the run.
    known = sorted(count for count in spent if 1 <= count < len(lines))
    steps = UNTOLD * (known[-1] - known[0]) if known else 0
    processor = (spent[known[-1]] - spent[known[0]]) / steps if steps else math.nan
    return Watched(lines, peak, files, processor)


def _status(process: "subprocess.Popen[str]", key: str) -> float:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith(key)).split()[1])
    return 0.0
