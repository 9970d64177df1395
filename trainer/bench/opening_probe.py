"""Opens records once, in a process of its own, and prints what that took.

usage: python -m trainer.bench.opening_probe METHOD FILE.rec...
"""

import json
import sys
import time
from pathlib import Path

from data_pipeline import RecordReader
from trainer.bench.data_problem import OPEN_DICT, OPEN_LOADER
from trainer.bench.peak_memory import peak_bytes, reset_peak, resident_bytes


def _open(method: str, paths: list[Path]) -> int:
    """Number of records; whatever the reader holds is held until the process ends."""
    if method == OPEN_LOADER:
        reader = RecordReader(paths)
        _HELD.append(reader)
        return len(reader)
    if method == OPEN_DICT:
        # What mxnet.recordio.MXIndexedRecordIO does with its index.
        keys, offsets = [], {}
        for path in paths:
            with path.with_suffix(".idx").open() as stream:
                for line in iter(stream.readline, ""):
                    key, offset = line.strip().split("\t")
                    offsets[int(key)] = int(offset)
                    keys.append(int(key))
        _HELD.extend((keys, offsets))
        return len(keys)
    raise ValueError(method)


_HELD: list[object] = []


def main(method: str, *paths: str) -> None:
    """Print a JSON object: records, seconds, peak_bytes, held_bytes (both beyond what the process had before)."""
    reset_peak()
    before = resident_bytes()
    began = time.perf_counter()
    records = _open(method, [Path(path) for path in paths])
    seconds = time.perf_counter() - began
    peak, held = peak_bytes() - before, resident_bytes() - before
    print(json.dumps({"records": records, "seconds": seconds, "peak_bytes": peak, "held_bytes": held}))


if __name__ == "__main__":
    main(*sys.argv[1:])
