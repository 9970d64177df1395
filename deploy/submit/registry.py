"""What was submitted from here: one small JSON file a run, so that the run can be asked about by its name."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.pending_file import write_file
from deploy.submit.errors import SubmitError


@dataclass(frozen=True)
class Entry:
    """A submitted run. options: the target's own. submitted: ISO 8601, UTC. output: the run's folder, as it sees it.

    overrides are in the configuration that was sent; environment and secrets are not kept.
    """

    name: str
    target: str
    options: dict[str, Any]
    submitted: str
    config: str
    output: str
    nodes: int
    ranks_per_node: int
    cancelled: list[str] = field(default_factory=list)  # when it was asked to stop


class Registry:
    """The folder of all entries, ``NAME.json``; ``NAME/`` beside it is the target's to fill."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder_of(self, name: str) -> Path:
        """Where the target keeps what it wants to know again, and files of output; it may not exist."""
        return self._folder / name

    def entries(self) -> list[Entry]:
        """All, oldest first."""
        found = [self._read(path) for path in self._folder.glob("*.json")]
        return sorted(found, key=lambda entry: (entry.submitted, entry.name))

    def find(self, name: str) -> Entry | None:
        """The run last submitted by that name."""
        path = self.path_of(name)
        return self._read(path) if path.exists() else None

    def get(self, name: str) -> Entry:
        """The same. Raises SubmitError where there is none."""
        entry = self.find(name)
        if entry is None:
            known = ", ".join(each.name for each in self.entries()) or "none yet"
            raise SubmitError(f"no run called '{name}' was submitted from here ({self._folder}): {known}")
        return entry

    def write(self, entry: Entry) -> None:
        """Replace the entry of that name."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file(self.path_of(entry.name), json.dumps(asdict(entry), indent=2) + "\n")

    def forget(self, name: str) -> None:
        """Remove the entry of that name."""
        self.path_of(name).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One submission at a time: two of the same name must not both find it free."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def path_of(self, name: str) -> Path:
        """Of the entry of that name; it may not exist."""
        return self._folder / f"{name}.json"

    def _read(self, path: Path) -> Entry:
        try:
            return Entry(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SubmitError(f"{path}: cannot be read ({error}); remove it to forget that run", 1) from None
