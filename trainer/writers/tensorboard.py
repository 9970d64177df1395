"""Curves for TensorBoard: ``OUTPUT/tensorboard``, one event file for each process that worked at the run."""

from pathlib import Path

from trainer.writers.event_file import EventFile
from trainer.writers.rows import Row, past_rows

FOLDER = "tensorboard"


class TensorBoardWriter:
    """Goes on with the curves of a run at ``step``; curves that begin late begin with the run all the same."""

    name = "TensorBoard"

    def __init__(self, run_folder: Path, *, step: int, configuration: str) -> None:
        folder = run_folder / FOLDER
        begins = step == 0 or not any(folder.glob("events.out.tfevents.*"))
        self._file = EventFile(folder, purge_step=0 if begins else step + 1)
        if begins:
            self._file.append_text("config", configuration)
            # At step 0 nothing but a verification can be there, which will be told again.
            for row in past_rows(run_folder, until=step) if step else ():
                self.write(row)

    @property
    def problem(self) -> str | None:
        """Why rows wait in memory."""
        error = self._file.problem
        return None if error is None else error.strerror or str(error)

    def write(self, row: Row) -> None:
        """One event holds all values of the row."""
        self._file.append_scalars(row.curves, step=row.step, wall_time=row.time)

    def close(self, *, deadline_seconds: float) -> None:
        """All is written already."""
