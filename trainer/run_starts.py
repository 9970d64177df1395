"""When a run was started: one line for every start, which also tells how often it was started again."""

import json
import time
from pathlib import Path

from trainer.line_file import LineFile

STARTS = "starts.jsonl"


def note_start(run_folder: Path, step: int, world_size: int) -> int:
    """Add a line for this start, which goes on from ``step``; how many there are now, this one included.

    On a full disk the start is counted all the same.
    """
    path = run_folder / STARTS
    try:
        before = path.read_bytes().count(b"\n")
    except OSError:
        before = 0
    LineFile(path).append(json.dumps({"time": time.time(), "step": step, "world_size": world_size}))
    return before + 1
