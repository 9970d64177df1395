"""Where an exported file goes: found out to be possible before any work, written whole or not at all."""

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from data_pipeline.pending_file import NO_ROOM, PendingFile
from trainer.errors import ConfigError


def sidecar_of(path: Path) -> Path:
    """The JSON file that says what a file of torch's is."""
    return path.with_name(f"{path.name}.json")


def check_output(path: Path, *, source: Path, overwrite: bool) -> None:
    """Whether ``path`` can be written, by trying; nothing is left of the trial.

    Raises ConfigError, also where a file is there and ``overwrite`` is not set, or it is what is exported.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--output {path}: no such folder {folder}; make it first")
    if path.exists() and not path.is_file():
        raise ConfigError(f"--output {path}: is there, and is no file; name a file")
    if path.exists() and source.exists() and path.samefile(source):
        raise ConfigError(f"--output {path}: is the model that is exported; name another file")
    if path.exists() and not overwrite:
        raise ConfigError(f"--output {path}: is there already; --overwrite replaces it")
    try:
        PendingFile(path).discard()
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise ConfigError(
            f"--output {path}: cannot be written ({error.strerror}); name a file in a folder that you can write to"
        ) from None


def publish(files: Sequence[tuple[Path, bytes]]) -> None:
    """Write all ``files``, then give them their names, the last one last.

    Raises OSError; where a file could not be written, none has got its name.
    """
    with ExitStack() as unfinished:
        pending = []
        for path, content in files:
            _remove_leftovers(path)
            file = PendingFile(path)
            unfinished.callback(file.discard)
            try:
                file.stream.write(content)
                file.finish()
            except OSError as error:
                error.filename = error.filename or str(path)
                raise
            pending.append(file)
        for file in pending:
            file.publish()


def _remove_leftovers(path: Path) -> None:
    """What exports to the same name left that were killed while they wrote."""
    temporary = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.[0-9a-f]{{8}}\.tmp")
    for found in path.absolute().parent.iterdir():
        match = temporary.fullmatch(found.name)
        if match and not _is_running(int(match[1])):
            found.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
