"""The folder in which findings are made before they get their name: whole or not there, also when killed."""

import fcntl
import os
import shutil
from pathlib import Path

from trainer.errors import ConfigError


class DraftFolder:
    """``.NAME.unfinished`` beside ``output``; made by the first rank, seen by all.

    What a killed command left there is removed; that another one is at work there is told by a lock, which a process
    that ends in whatever way lets go.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.unfinished")
        self._lock: int | None = None

    def begin(self) -> None:
        """Raises ConfigError where ``output`` exists, cannot be made, or is being made by another process."""
        if self.output.exists() or self.output.is_symlink():
            raise ConfigError(f"--output {self.output} exists: name a new folder")
        if not self.output.parent.is_dir():
            raise ConfigError(f"--output {self.output}: the folder {self.output.parent} does not exist: make it first")
        self.folder.mkdir(exist_ok=True)
        lock = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ConfigError(f"another command is writing {self.output}: wait for it to end") from None
        self._lock = lock
        for left in self.folder.iterdir():
            left.unlink()

    def publish(self) -> None:
        """Give the folder its name."""
        self.folder.rename(self.output)

    def end(self) -> None:
        """Remove what was not published; does nothing for who did not begin it."""
        if self._lock is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)
        self._lock = None
