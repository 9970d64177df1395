"""A file that appears whole or not at all: written beside its place, then renamed into it."""

import errno
import os
import secrets
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing alone meets; other errors may be of what is read


def _close_and_unlink(stream: BinaryIO, temporary: Path) -> None:
    try:
        # What is buffered is unwanted, and on a full disk writing it fails.
        with suppress(OSError):
            stream.close()
    finally:
        temporary.unlink(missing_ok=True)


def _name_file(error: OSError, path: Path) -> None:
    """A failed write itself names no file, and "No space left on device" alone helps nobody."""
    if error.filename is None and error.errno in NO_ROOM:
        error.filename = str(path)


@contextmanager
def _names_file(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _name_file(error, path)
        raise


class PendingFile:
    """A binary file under a temporary name in the folder of ``path``.

    ``finish()`` flushes it to the disk, ``publish()`` renames it to ``path``, ``discard()`` removes it.
    As a context manager it publishes on a clean exit and discards on an exception. One that is
    forgotten removes its temporary file when it is collected.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        # Opened with "x" rather than mkstemp: the user's umask decides who may read the result.
        self.stream: BinaryIO = self._temporary.open("xb")
        self._cleanup = weakref.finalize(self, _close_and_unlink, self.stream, self._temporary)

    def finish(self) -> None:
        """Flush everything to the disk and close; the temporary name stays."""
        if not self.stream.closed:
            with _names_file(self.path):
                self.stream.flush()
                os.fsync(self.stream.fileno())
                self.stream.close()

    def publish(self) -> None:
        """Give the finished file its real name."""
        self.finish()
        self._temporary.replace(self.path)
        self._cleanup.detach()

    def discard(self) -> None:
        """Remove the temporary file; harmless after ``publish()``."""
        self._cleanup()

    def __enter__(self) -> "PendingFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            try:
                self.publish()
            except BaseException:
                self.discard()
                raise
        else:
            self.discard()
            if isinstance(error, OSError):
                _name_file(error, self.path)


def write_file(path: Path, content: bytes | str) -> None:
    """Write ``content`` (text as UTF-8) to ``path`` in one piece."""
    with PendingFile(path) as pending:
        pending.stream.write(content.encode() if isinstance(content, str) else content)
