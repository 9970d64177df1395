"""Which run at W&B a run folder belongs to, and what W&B has of it: ``OUTPUT/wandb_run.json``.

W&B's own file of an offline session holds back up to 32 KiB until the session is finished; of a killed one nobody
knows what is in it. So what counts are finished sessions: the folder of an unfinished one is deleted and its rows
are written again from the run's own files.
"""

import json
import shutil
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_pipeline.pending_file import write_file
from trainer.writers.rows import Row

FILE = "wandb_run.json"
FOLDER = "wandb"
NOTHING = -1


@dataclass
class Session:
    """id: of the run at W&B. step, parts: the last step that W&B has, and what of it. unfinished: name of the folder of
    a session that is open; step and parts are then those before it.
    """

    id: str
    step: int = NOTHING
    parts: list[str] = field(default_factory=list)
    unfinished: str | None = None

    def has(self, row: Row) -> bool:
        """Whether W&B has got this row already."""
        return row.step < self.step or (row.step == self.step and row.part in self.parts)

    def add(self, row: Row) -> None:
        """W&B has got it now."""
        if row.step > self.step:
            self.step, self.parts = row.step, []
        self.parts.append(row.part)

    def save(self, run_folder: Path) -> None:
        """Replace the file as a whole."""
        write_file(run_folder / FILE, json.dumps(asdict(self)).encode() + b"\n")


def open_session(run_folder: Path) -> Session:
    """The run's own, or a new one. What a killed process has left of an offline session is removed, unless it was
    uploaded meanwhile.
    """
    session = Session(uuid.uuid4().hex[:12])
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads((run_folder / FILE).read_bytes())
        unfinished = stored["unfinished"]
        parts = [str(part) for part in stored["parts"]]
        unfinished = None if unfinished is None else str(unfinished)
        session = Session(str(stored["id"]), int(stored["step"]), parts, unfinished)
    if session.unfinished is not None:
        _remove_offline(run_folder / FOLDER / Path(session.unfinished).name)
        session.unfinished = None
    return session


def remove_unsent(run_folder: Path, session: Session) -> None:
    """Remove the run's offline sessions that were never uploaded."""
    for folder in (run_folder / FOLDER).glob(f"offline-run-*-{session.id}"):
        _remove_offline(folder)


def _remove_offline(folder: Path) -> None:
    uploaded = any(folder.glob("*.synced"))
    if folder.name.startswith("offline-run-") and not uploaded:
        shutil.rmtree(folder, ignore_errors=True)
