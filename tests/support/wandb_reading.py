"""W&B's file of an offline session: a header of 7 bytes, then LevelDB's log format, then protobuf.

W&B reads it in its own program alone, on the way to its server; of its Python package the records' types are left.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK, RECORD_HEADER = 7, 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def _records(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B", content[:HEADER]
    place, record = HEADER, b""
    while place + RECORD_HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < RECORD_HEADER:  # too little for another header: zeros
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        piece = content[place + RECORD_HEADER : place + RECORD_HEADER + length]
        assert kind in (FULL, FIRST, MIDDLE, LAST) and len(piece) == length, (place, kind, length)
        place += RECORD_HEADER + length
        record = piece if kind in (FULL, FIRST) else record + piece
        if kind in (FULL, LAST):
            yield record


def read_session(folder: Path) -> list[Any]:
    """The records of one session's folder."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("*.wandb")
    return [Record.FromString(content) for content in _records(path.read_bytes())]


def sessions(run_folder: Path) -> list[Path]:
    """The offline sessions of a run, oldest first."""
    return sorted((run_folder / "wandb").glob("offline-run-*"))


def read_rows(run_folder: Path) -> list[dict[str, float]]:
    """What all sessions of a run have logged, in this order."""
    rows = []
    for folder in sessions(run_folder):
        for record in read_session(folder):
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({"/".join(each.nested_key) or each.key: json.loads(each.value_json) for each in items})
    return rows


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration as one session has it."""
    values: dict[str, Any] = {}
    for record in read_session(folder):
        if record.WhichOneof("record_type") == "run":
            values |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
    return values
