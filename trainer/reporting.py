"""Where a run tells how it goes."""

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from trainer.journal import Journal
from trainer.metrics import TrainingMetrics
from trainer.progress import Progress
from trainer.writers.run_writers import RunWriters


@dataclass(frozen=True)
class Reporting:
    """metrics.jsonl, Prometheus, the terminal, this rank's log, and curves for other programs."""

    journal: Journal
    metrics: TrainingMetrics
    progress: Progress
    log: FilteringBoundLogger
    writers: RunWriters

    def warn(self, text: str, problem: OSError) -> None:
        """Of something that does not end the run."""
        reason = problem.strerror or str(problem)
        self.log.warning(text, error=str(problem))
        self.progress.say(f"warning: {text}: {reason}; the run goes on")
