"""What a local run's supervisor tells of it: ``state.json`` in the run's folder of the registry."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipeline.pending_file import write_file
from deploy.submit.errors import SubmitError
from deploy.submit.processes import ProcessMark

PLAN, STATE, CONFIG, OUTPUT = "plan.json", "state.json", "run.toml", "output"


@dataclass(frozen=True)
class Plan:
    """What the supervisor is to do. settings: variables to set. python: of the ranks. folder: to start them in.

    grace_seconds: between SIGTERM and SIGKILL. deadline_seconds: cap on the whole run, None: none.
    """

    name: str
    python: str
    folder: str
    nodes: int
    ranks_per_node: int
    settings: dict[str, str]
    max_restarts: int
    grace_seconds: int
    deadline_seconds: int | None

    def write(self, folder: Path) -> None:
        """Into the run's folder."""
        write_file(folder / PLAN, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """The counterpart. Raises SubmitError for a file that cannot be read."""
        try:
            return cls(**json.loads((folder / PLAN).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise SubmitError(f"{folder / PLAN}: cannot be read ({error})", 1) from None


@dataclass(frozen=True)
class LocalState:
    """state: as of :class:`deploy.submit.target.Status`. attempt: counted over all submissions of that name, from 1.

    restarts: of this submission. codes: of the nodes, once they have ended. agents: the launchers' processes.
    """

    supervisor: ProcessMark
    state: str
    detail: str
    attempt: int
    restarts: int
    exit_code: int | None = None
    codes: tuple[int, ...] = ()
    agents: tuple[int, ...] = ()

    def write(self, folder: Path) -> None:
        """Into the run's folder, in one piece."""
        write_file(folder / STATE, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "LocalState | None":
        """The counterpart; None where no supervisor has told anything. Raises SubmitError."""
        try:
            values = json.loads((folder / STATE).read_text(encoding="utf-8"))
            return cls(**(values | {"supervisor": ProcessMark(**values["supervisor"])}))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SubmitError(f"{folder / STATE}: cannot be read ({error})", 1) from None


def output_file(folder: Path, attempt: int, node: int) -> Path:
    """Of what the ranks of a node printed in an attempt."""
    return folder / OUTPUT / f"attempt-{attempt:04d}-node-{node}.log"


def last_attempt(folder: Path) -> int:
    """The newest one that has printed anything; 0 before the first."""
    names = [path.name for path in (folder / OUTPUT).glob("attempt-*-node-0.log")]
    return max((int(name.split("-")[1]) for name in names), default=0)
