"""What opening a large data set costs: seconds and memory, each time in a fresh process."""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from trainer.bench.data_problem import OPEN_DICT, OPEN_LOADER, OpeningRow
from trainer.bench.opening_files import write_opening_files

_DEADLINE_SECONDS = 600
_FILES = (1, 10)


def bench_opening(folder: Path, records: int, repetitions: int, seed: int) -> Iterator[OpeningRow]:
    """Open ``records`` records as one file and as ten; beside it, the one file as MXNet's Python reader does.

    Raises:
        RuntimeError: a reader fails or takes more than ten minutes.
    """
    for files in _FILES:
        place = folder / f"opening-{files}"
        place.mkdir()
        paths = write_opening_files(place, records, files, seed)
        for method in (OPEN_LOADER, OPEN_DICT) if files == 1 else (OPEN_LOADER,):
            found = [_probe(method, paths) for _ in range(repetitions if method == OPEN_LOADER else 1)]
            if {each["records"] for each in found} != {records}:
                raise RuntimeError(f"{method} opened {found[0]['records']} of {records} records")
            yield OpeningRow(
                method,
                records,
                files,
                statistics.median(each["seconds"] for each in found),
                int(max(each["peak_bytes"] for each in found)),
                int(max(each["held_bytes"] for each in found)),
            )


def _probe(method: str, paths: list[Path]) -> dict[str, float]:
    command = [sys.executable, "-m", "trainer.bench.opening_probe", method, *map(str, paths)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"opening with {method} took more than {_DEADLINE_SECONDS} seconds") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"opening with {method} failed: {last}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
