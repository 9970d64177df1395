"""Results of protocols on disk: ``FOLDER/step_00001000/NAME/result.json`` and its pictures; all of them, or nothing."""

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from data_pipeline.pending_file import PendingFile
from trainer.errors import ConfigError
from trainer.evaluation.protocol_result import ProtocolResult


def save_protocol(folder: Path, step: int, result: ProtocolResult, pictures: Mapping[str, bytes]) -> Path:
    """Write ``result`` and ``pictures`` (by file name) and return their folder; older ones are replaced.

    Every file is on the disk under a temporary name before the first gets its own; result.json comes last.
    """
    target = folder / f"step_{step:08d}" / result.name
    target.mkdir(parents=True, exist_ok=True)
    content = dict(pictures) | {"result.json": (json.dumps(result.numbers, allow_nan=False) + "\n").encode()}
    with ExitStack() as unfinished:
        files = []
        for name, data in content.items():
            pending = PendingFile(target / name)
            unfinished.callback(pending.discard)
            pending.stream.write(data)
            pending.finish()
            files.append(pending)
        for pending in files:
            pending.publish()
    return target


def check_output(folder: Path) -> None:
    """Find out, before any work is done, whether results can be written below ``folder``.

    Raises:
        ConfigError: it is a file or lies below one, or may not be written to.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise ConfigError(f"--output {folder}: {there} is a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"--output {folder}: {there} cannot be written to; name another folder")
