"""Tells of images that the loader replaced because they are bad: counts in the metrics, a line at times in the log."""

import time
from collections.abc import Callable, Mapping

from prometheus_client import Counter
from structlog.typing import FilteringBoundLogger

from data_pipeline.errors import REASONS
from trainer.batch_source import BatchSource

LINE_EVERY_SECONDS = 60.0


class SkippedImages:
    """Follows one rank's loader; ``update()`` after a step costs a comparison where nothing is new.

    The first image of each reason is logged at once with file, record and byte; after that a line with the counts
    follows at most every ``LINE_EVERY_SECONDS``. before: counts of the run's earlier processes.
    """

    def __init__(
        self,
        loader: BatchSource,
        counter: Counter,
        log: FilteringBoundLogger,
        clock: Callable[[], float] = time.monotonic,
        before: Mapping[str, int] | None = None,
    ) -> None:
        self._loader = loader
        self._counter = counter
        self._log = log
        self._clock = clock
        self._counted = dict.fromkeys(REASONS, 0)
        self._before = dict(before or {})
        self._told: set[str] = set()
        self._last_line = -LINE_EVERY_SECONDS

    @property
    def counts(self) -> dict[str, int]:
        """Images skipped by this rank, of the reasons that occurred."""
        both = {reason: self._before.get(reason, 0) + count for reason, count in self._counted.items()}
        return {reason: count for reason, count in both.items() if count}

    def update(self) -> None:
        """Take over what the loader has skipped meanwhile."""
        news = False
        for reason, count in self._loader.skipped.items():
            if count == self._counted[reason]:
                continue
            self._counter.labels(reason).inc(count - self._counted[reason])
            self._counted[reason] = count
            news = True
            if reason not in self._told:
                self._told.add(reason)
                self._log.warning("skipped_image", reason=reason, image=self._loader.bad_images.first[reason])
        if news and self._clock() - self._last_line >= LINE_EVERY_SECONDS:
            self._last_line = self._clock()
            self._log.warning("skipped_images", different=self._loader.bad_images.known, **self.counts)
