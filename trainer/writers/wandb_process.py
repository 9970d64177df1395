"""The process that talks to W&B for a run: ``python -m trainer.writers.wandb_process``, started by rank 0.

It is one of its own because W&B hooks into the exit of its process and waits there for its server; a training does
not. First line of the input: where and what; then a row each; the end of the input is the end of the session. What
it prints are warnings for the user.
"""

import fcntl
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import wandb

from trainer.writers.rows import LINE, Row, past_rows
from trainer.writers.wandb_session import FILE, NOTHING, Session, open_session, remove_unsent

FINISH_SECONDS = 60  # after the end of the input; the training has long gone on without us
INIT_SECONDS = 20
STEP = "step"


@dataclass(frozen=True)
class Start:
    """The first line. settings: as WandbConfig has them. step: from which the run goes on."""

    run_folder: Path
    settings: dict[str, Any]
    configuration: dict[str, Any]
    step: int


def main() -> int:
    """Returns the exit code: 0 when all rows are with W&B or in an offline session's folder."""
    first = json.loads(sys.stdin.readline())
    start = Start(Path(first["run_folder"]), first["settings"], first["configuration"], first["step"])
    with _alone(start.run_folder):
        session = open_session(start.run_folder)
        run = _begin(start, session)
        if not run.offline:
            _ask_server(run, session, start)
        session.unfinished = Path(run.dir).parent.name
        session.save(start.run_folder)
        for row in _rows(start):
            if not session.has(row):
                run.log({STEP: row.step, "time": row.time, **row.curves})
                session.add(row)
        # W&B waits for its server; whoever started us may have ended, and nobody would end us.
        deadline = threading.Timer(FINISH_SECONDS, lambda: os._exit(1))
        deadline.daemon = True
        deadline.start()
        run.finish()
        session.unfinished = None
        session.save(start.run_folder)
    return 0


def _ask_server(run: Any, session: Session, start: Start) -> None:
    """What the server has of a killed session only the server knows; what it lacks is sent from the run's own files,
    offline sessions included.
    """
    step = int(run.summary.get(STEP, NOTHING))
    if step != session.step:
        session.step, session.parts = step, [LINE]
    remove_unsent(start.run_folder, session)


def _rows(start: Start) -> Iterator[Row]:
    """Of the past, then what comes in."""
    yield from past_rows(start.run_folder, until=start.step)
    for text in sys.stdin:
        yield Row(**json.loads(text))


def _begin(start: Start, session: Session) -> Any:
    """Online if asked for and possible, else offline."""
    if start.settings["mode"] == "online":
        try:
            return _init(start, session, "online")
        except Exception as error:  # no key, no network, a service that is down: its errors are of many types
            reason = " ".join(str(error).split()) or type(error).__name__
            wandb.teardown(exit_code=1)  # its service holds the run's id
            _warn(f"W&B cannot be reached ({reason[:200]}): curves are kept in {start.run_folder / 'wandb'}; "
                  "upload them with: wandb sync")  # fmt: skip
    return _init(start, session, "offline")


def _init(start: Start, session: Session, mode: Literal["online", "offline"]) -> Any:
    settings = start.settings
    run = wandb.init(
        project=settings["project"],
        entity=settings["entity"],
        name=settings["name"] or start.run_folder.name,
        tags=settings["tags"],
        config=start.configuration,
        mode=mode,
        id=session.id,
        resume="allow",
        dir=start.run_folder,
        settings=wandb.Settings(
            console="off", silent=True, init_timeout=INIT_SECONDS, login_timeout=1, disable_git=True, save_code=False
        ),
    )
    # Our steps are the horizontal axis; W&B's own count of rows drops what comes late.
    run.define_metric(STEP)
    run.define_metric("*", step_metric=STEP)
    return run


@contextmanager
def _alone(run_folder: Path) -> Iterator[None]:
    """After the session of a run just killed, which may still be writing its last rows."""
    with (run_folder / f".{FILE}.lock").open("w") as lock:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _warn(text: str) -> None:
    with suppress(OSError):
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
