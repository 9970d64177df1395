"""What a writer of curves is."""

from typing import Protocol

from trainer.writers.rows import Row


class Writer(Protocol):
    """Takes rows in the order of steps; several of one step are allowed.

    A writer returns at once. What it cannot write for the time being it keeps, and says so in ``problem``; any
    exception ends the writer and not the run.
    """

    name: str

    @property
    def problem(self) -> str | None:
        """Why rows wait or are lost; None while all is well."""

    def write(self, row: Row) -> None:
        """Take one row."""

    def close(self, *, deadline_seconds: float) -> None:
        """Write the rest, or what can be written of it in time."""
