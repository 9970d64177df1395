"""Where a run tells how it goes."""

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from trainer.journal import Journal
from trainer.metrics import TrainingMetrics
from trainer.progress import Progress


@dataclass(frozen=True)
class Reporting:
    """metrics.jsonl, Prometheus, the terminal and this rank's log."""

    journal: Journal
    metrics: TrainingMetrics
    progress: Progress
    log: FilteringBoundLogger
