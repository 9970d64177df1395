"""Several files that appear together, or none of them."""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from data_pipeline.pending_file import NO_ROOM, PendingFile


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write each file's content; folders are made, files that are there are replaced.

    All are on the disk under temporary names before the first gets its own, in the order given. When one cannot be
    written, nothing is left of any, nor of the folders made for them. Raises OSError, which names the file.
    """
    with ExitStack() as unfinished:
        pending = []
        for path, content in files.items():
            for folder in _to_make(path.parent):
                folder.mkdir(exist_ok=True)
                unfinished.callback(_remove_empty, folder)
            file = PendingFile(path)
            unfinished.callback(file.discard)
            try:
                file.stream.write(content)
            except OSError as error:
                if error.errno in NO_ROOM:
                    error.filename = error.filename or str(path)
                raise
            file.finish()
            pending.append(file)
        for file in pending:
            file.publish()


def _to_make(folder: Path) -> list[Path]:
    """Of the folder and those above it the ones that are not there, the highest first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    return missing[::-1]


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # not empty: somebody's files are in it, or these
        folder.rmdir()
