"""The writers of a run, none of which can end it or hold it up."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from trainer.checkpoint import Position
from trainer.config import Config
from trainer.evaluation import VerificationResult
from trainer.evaluation.store import result_numbers
from trainer.progress import Progress
from trainer.world import World
from trainer.writers.base import Writer
from trainer.writers.curves import line_curves, verification_curves
from trainer.writers.rows import LINE, Row
from trainer.writers.wandb import WandbWriter

CLOSE_SECONDS = 10.0  # launchers give 30 s from the request to stop until they kill
FAILED_CLOSE_SECONDS = 3.0  # the other ranks learn of the failure afterwards


class RunWriters:
    """Gives each writer all rows. warn: told once when a writer gets into trouble, and again only after it was well."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._writers: list[Writer] = []
        self._troubled: set[str] = set()

    def open(self, name: str, make: Callable[[], Writer]) -> None:
        """Add a writer, if it can be made."""
        try:
            self._writers.append(make())
        except Exception as error:  # of a library, its files or its service: the run goes on whatever it is
            self._warn(f"no curves for {name}: {_reason(error)}; the run goes on")

    def write_line(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl."""
        if self._writers:
            self._write(Row(int(line["step"]), LINE, float(line["time"]), line_curves(line)))

    def write_verification(self, step: int, time: float, results: Sequence[VerificationResult]) -> None:
        """What the weights of ``step`` are worth."""
        for result in results if self._writers else ():
            self._write(Row(step, result.name, time, verification_curves(result_numbers(step, result))))

    def close(self, *, deadline_seconds: float = CLOSE_SECONDS) -> None:
        """Let each write what it still has."""
        for writer in self._writers:
            try:
                writer.close(deadline_seconds=deadline_seconds)
            except Exception as error:
                self._warn(f"curves for {writer.name}: {_reason(error)}")
        self._writers.clear()

    def _write(self, row: Row) -> None:
        for writer in list(self._writers):
            try:
                writer.write(row)
                problem = writer.problem
            except Exception as error:
                self._writers.remove(writer)
                self._warn(f"no more curves for {writer.name}: {_reason(error)}; the run goes on")
                continue
            if problem is not None and writer.name not in self._troubled:
                self._warn(f"curves for {writer.name} are not written: {problem}; the run goes on")
            (self._troubled.add if problem is not None else self._troubled.discard)(writer.name)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def open_writers(
    config: Config, run_folder: Path, world: World, position: Position, progress: Progress, log: FilteringBoundLogger
) -> Iterator[RunWriters]:
    """The writers that ``config`` asks for, on rank 0, for a run that goes on at ``position``; closed after the block,
    however it ends. The run's metrics.jsonl must have been cut at ``position`` before.
    """

    def warn(text: str) -> None:
        log.warning("curves", problem=text)
        progress.say(f"warning: {text}")

    writers = RunWriters(warn)
    if world.is_first and config.log.tensorboard:

        def tensorboard() -> Writer:
            from trainer.writers.tensorboard import TensorBoardWriter  # installed by choice

            return TensorBoardWriter(run_folder, step=position.step, configuration=config.to_toml())

        writers.open("TensorBoard", tensorboard)
    if world.is_first and (wandb := config.log.wandb) is not None:

        def weights_and_biases() -> Writer:
            return WandbWriter(run_folder, wandb, step=position.step, configuration=config.to_dict(), say=warn)

        writers.open("W&B", weights_and_biases)
    try:
        yield writers
    except BaseException:
        writers.close(deadline_seconds=FAILED_CLOSE_SECONDS)
        raise
    writers.close()
