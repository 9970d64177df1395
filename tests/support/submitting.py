"""``pfc submit`` and its companions, as a user of one account types them; what they started is gone afterwards."""

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from commands import MARK, Finished, environment, kill_marked, pfc, ranks_of


@dataclass
class Account:
    """state: its folder of submitted runs. settings: further variables of its shell."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def shell(self) -> dict[str, str]:
        """Variables that are its own."""
        return self.settings | {MARK: self.mark, "PFC_STATE_DIR": str(self.state)}

    def pfc(self, *arguments: str | Path, deadline_seconds: float = 120.0) -> Finished:
        temporary = self.folder / ".tmp"
        temporary.mkdir(exist_ok=True)
        # What it leaves running in the background must not hold our pipes open, so that is tested with it.
        done = subprocess.run(
            pfc(*arguments),
            cwd=self.folder,
            env=environment() | self.shell | {"TMPDIR": str(temporary)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=deadline_seconds,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def done(self, *arguments: str | Path) -> str:
        """What a command printed that must succeed; one that follows a run says beside it how that ended."""
        finished = self.pfc(*arguments)
        assert (finished.code, finished.err if "--follow" not in arguments else "") == (0, ""), finished
        return finished.out

    def refused(self, *arguments: str | Path, code: int = 2) -> str:
        """The one line of a command that must not."""
        finished = self.pfc(*arguments)
        assert (finished.code, len(finished.err.splitlines())) == (code, 1), finished
        return finished.error_lines[0]

    def status(self, name: str) -> dict[str, object]:
        (found,) = json.loads(self.done("status", name, "--json"))
        assert isinstance(found, dict)
        return found

    def wait_until_ended(self, name: str, *, deadline_seconds: float = 200.0) -> dict[str, object]:
        end = time.monotonic() + deadline_seconds
        while (status := self.status(name))["state"] in ("waiting", "running"):
            assert time.monotonic() < end, (status, self.pfc("logs", name).out)
            time.sleep(0.5)
        return status

    def ranks(self) -> dict[int, int]:
        """Process id by rank of the ranks that live."""
        return ranks_of(self.mark)


@contextmanager
def account(folder: Path, **settings: str) -> Iterator[Account]:
    made = Account(folder, settings)
    try:
        yield made
    finally:
        kill_marked(made.mark)
