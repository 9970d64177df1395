"""Structured logs: every rank writes one JSON object a line to its own file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from structlog.typing import FilteringBoundLogger

from trainer.line_file import LineFile


@contextmanager
def rank_log(run_folder: Path, rank: int) -> Iterator[FilteringBoundLogger]:
    """A logger that appends to ``run_folder/logs/rank_NNNN.jsonl``; each line has time (ISO, UTC), level, rank.

    Lines that a full disk does not take wait in memory.
    """
    folder = run_folder / "logs"
    folder.mkdir(exist_ok=True)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(LineFile(folder / f"rank_{rank:04d}.jsonl")),  # type: ignore[arg-type]  # all it needs
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    yield logger.bind(rank=rank)
