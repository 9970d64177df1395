"""Results of protocols on disk: ``FOLDER/step_00001000/NAME/result.json`` and its pictures; all of them, or nothing."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from data_pipeline.files_together import write_together
from trainer.errors import ConfigError
from trainer.evaluation.protocol_result import ProtocolResult


def save_protocol(folder: Path, step: int, result: ProtocolResult, pictures: Mapping[str, bytes]) -> None:
    """Write ``result`` and ``pictures`` (by file name); older ones are replaced."""
    write_together(protocol_files(folder, step, result, pictures))


def protocol_files(folder: Path, step: int, result: ProtocolResult, pictures: Mapping[str, bytes]) -> dict[Path, bytes]:
    """What ``save_protocol`` writes, result.json last."""
    target = protocol_folder(folder, step, result)
    numbers = (json.dumps(result.numbers, allow_nan=False) + "\n").encode()
    return {target / name: content for name, content in (dict(pictures) | {"result.json": numbers}).items()}


def protocol_folder(folder: Path, step: int, result: ProtocolResult) -> Path:
    """Where they lie."""
    return folder / f"step_{step:08d}" / result.name


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
