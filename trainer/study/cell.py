"""One training of the study: an ordinary ``pfc train`` process with a deadline, whose folder is its whole memory.

OUTPUT/runs/NAME.toml  its configuration     OUTPUT/runs/NAME.log  what it printed     OUTPUT/runs/NAME/  the run
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.pending_file import write_file
from trainer.config import Config, config_from
from trainer.errors import ConfigError, ExitCode
from trainer.evaluation.store import StoredResult, load_results
from trainer.study.errors import StudyError

POLL_SECONDS = 0.2
SAVING_SECONDS = 60.0  # after it was asked to stop
LAST_WORDS = 300


@dataclass(frozen=True)
class Cell:
    """name: of its files. values: the run's configuration as plain values. pairs: name of the set that judges it."""

    name: str
    values: dict[str, Any]
    pairs: str

    def config(self) -> Config:
        """Raises ConfigError where the values are no configuration."""
        return config_from(self.values, f"run {self.name}")


def finished(cell: Cell, folder: Path) -> StoredResult | None:
    """The result of a cell that was trained to its end, else None.

    Raises ConfigError for a broken result, and for a cell of this name that was begun with another configuration.
    """
    run, path = folder / cell.name, folder / f"{cell.name}.toml"
    if path.exists() and path.read_text(encoding="utf-8") != cell.config().to_toml():
        raise ConfigError(f"{path} is of another study: choose another --output, or repeat the study as it was begun")
    if not (folder / f"{cell.name}.done").exists():
        return None
    found = [each for each in load_results(run / "evaluations") if each.name == cell.pairs]
    return found[-1] if found else None


def train_cell(
    cell: Cell, folder: Path, *, deadline_seconds: float, lock: int, stopped: Callable[[], bool]
) -> StoredResult:
    """Train, or go on training, to the end.

    lock: a file that the process holds open, too, so that a training which outlives a killed study is noticed.
    stopped: whether the study was asked to end; the training then saves and stops.
    Raises StudyError when the training fails, is too slow, or was stopped; ConfigError for a bad configuration.
    """
    config = cell.config()
    path, log = folder / f"{cell.name}.toml", folder / f"{cell.name}.log"
    write_file(path, config.to_toml())
    began = time.monotonic()
    with log.open("ab") as printed:
        process = subprocess.Popen(
            [sys.executable, "-m", "trainer", "train", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=printed,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C reaches the study alone, which passes it on
        )
        try:
            while process.poll() is None:
                if stopped():
                    _end(process)
                    raise StudyError(f"stopped in {cell.name}; run the same command again to go on", ExitCode.STOPPED)
                if time.monotonic() - began > deadline_seconds:
                    _end(process)
                    raise StudyError(
                        f"{cell.name} took more than {deadline_seconds / 60:g} min: give --run-minutes more, or the "
                        f"runs fewer steps; the same command goes on where it stood ({log})"
                    )
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode != 0:
        raise StudyError(f"{cell.name} ended with code {process.returncode}: {_last_words(log)} ({log})")
    write_file(folder / f"{cell.name}.done", "")
    result = finished(cell, folder)
    if result is None:
        raise StudyError(f"{cell.name} left no result for the pairs {cell.pairs} ({log})")
    return result


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to save and end; not for ever."""
    process.terminate()
    try:
        process.wait(SAVING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_bytes()[-4096:].decode(errors="replace").splitlines()
    said = [line for line in lines if line.startswith("pfc: error:")] or [line for line in lines if line.strip()]
    return said[-1][:LAST_WORDS] if said else "it said nothing"
