"""Rows of ``pfc bench scaling`` in a JSON file that pieces of the measurement add to."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.pending_file import write_file
from trainer.bench.scaling_problem import ScalingRow
from trainer.errors import ConfigError

VERSION = 1


def merged(known: Iterable[ScalingRow], new: Iterable[ScalingRow]) -> list[ScalingRow]:
    """All of them, by axis and place; of two of the same point the newer one."""
    rows = {row.point: row for row in [*known, *new]}
    return sorted(rows.values(), key=lambda row: (row.point.axis, row.point.place))


def write_rows(path: Path, rows: Sequence[ScalingRow]) -> None:
    """Seconds and bytes."""
    write_file(path, json.dumps({"version": VERSION, "rows": [row.to_dict() for row in rows]}, indent=1) + "\n")


def read_rows(path: Path) -> list[ScalingRow]:
    """[] where there is no file yet. Raises ConfigError, one line, for anything but such a file."""
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error}); name another file") from None
    if not isinstance(values, dict) or values.get("version") != VERSION or not isinstance(values.get("rows"), list):
        raise ConfigError(f"{path}: no measurement of pfc bench scaling of this version; name another file")
    try:
        return [ScalingRow.from_dict(each) for each in values["rows"]]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path}: {error}; name another file") from None
