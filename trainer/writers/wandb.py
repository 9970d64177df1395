"""Curves for Weights & Biases, through a process of its own."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.writers.config import WandbConfig
from trainer.writers.pipe import FedProcess
from trainer.writers.rows import Row

PROCESS = "trainer.writers.wandb_process"
LOG = "logs/wandb.log"


class WandbWriter:
    """Goes on with the run's curves at ``step``. say: takes warnings for the user."""

    name = "W&B"

    def __init__(
        self,
        run_folder: Path,
        config: WandbConfig,
        *,
        step: int,
        configuration: dict[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self._say = say
        self._log = run_folder / LOG
        self._folder = run_folder / "wandb"
        self._process = FedProcess(PROCESS, log=self._log)
        self._process.send(
            {
                "run_folder": str(run_folder),
                "settings": config.model_dump(mode="json"),
                "configuration": configuration,
                "step": step,
            }
        )

    @property
    def problem(self) -> str | None:
        """Why rows are lost."""
        if self._process.ended is not None:
            return f"its process ended with code {self._process.ended}, see {self._log}"
        if self._process.dropped:
            return f"it does not take them, {self._process.dropped} are dropped"
        return None

    def write(self, row: Row) -> None:
        """Hand one row to the process."""
        self._process.send(asdict(row))
        self._pass_on()

    def close(self, *, deadline_seconds: float) -> None:
        """Let the process finish; what does not get to the service in time stays in its folder."""
        finished = self._process.finish(deadline_seconds=deadline_seconds)
        self._pass_on()
        self._process.close()
        if not finished:
            self._say(
                f"not all curves are with W&B, see {self._log}: the same command again hands over what is missing, "
                f"or upload {self._folder} with: wandb sync"
            )

    def _pass_on(self) -> None:
        for line in self._process.told():
            self._say(line)
