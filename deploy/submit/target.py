"""What every target can do with a job."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from deploy.submit.job import Job


@dataclass(frozen=True)
class Status:
    """Of a submitted run. state: one of STATES. detail: one line for people. exit_code: of the run, once it has one."""

    state: str
    detail: str = ""
    exit_code: int | None = None


STATES = ("waiting", "running", "done", "failed", "bad input", "stopped", "cancelled", "unknown")
LIVE = ("waiting", "running")
"""Of a run that has not ended: its name and its folder are taken."""


class Target(Protocol):
    """One place where runs can be sent; made from the parsed command line by ``from_arguments``.

    All methods raise SubmitError, one line, and leave nothing half-sent behind.
    """

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Options that this target alone has."""

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> "Target":
        """With these options."""

    def check(self, job: Job) -> None:
        """Refuse what this target cannot carry, before anything is sent."""

    def render(self, job: Job) -> str:
        """Exactly what would be sent, as text that the target's own tool takes: a script, commands, YAML documents."""

    def submit(self, job: Job) -> str:
        """Send it; a line that says what was started."""

    def status(self, name: str) -> Status:
        """Of the run of that name."""

    def logs(self, name: str, *, follow: bool = False, rank: int | None = None) -> Iterator[str]:
        """Lines of what its ranks printed."""

    def cancel(self, name: str) -> str:
        """Stop it as it wants to be stopped (SIGTERM, checkpoint, code 75); a line that says what was done."""


@runtime_checkable
class Distant(Protocol):
    """A target of which there are several, of which one is the current one: clusters. Ended runs stay there."""

    def place(self) -> dict[str, Any]:
        """Values of the target's own options that lead there again, whichever is the current one by then."""

    def clear(self, name: str) -> None:
        """Remove what is left of the run of that name, which was submitted from here and is over."""
