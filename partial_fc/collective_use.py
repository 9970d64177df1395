"""What collectives cost so far, by operation: payload and seconds, also where the device runs them later."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

OPERATIONS = ("all_gather", "reduce_scatter", "all_reduce")


class CollectiveUse:
    """Totals since this was made, of ``operations``. ``now`` gives seconds.

    On the CPU the host waits inside a collective: its time, the wait for slower ranks included, is counted when it
    returns. On a GPU the host only queues it; the device's own events tell, and are asked without waiting for them.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter, operations: Sequence[str] = OPERATIONS) -> None:
        self.now = now
        self._bytes = dict.fromkeys(operations, 0)
        self._seconds = dict.fromkeys(operations, 0.0)
        self._queued: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @property
    def nbytes(self) -> dict[str, int]:
        """Payload by operation."""
        return dict(self._bytes)

    @property
    def seconds(self) -> dict[str, float]:
        """By operation; on a GPU those that the device has finished."""
        return dict(self._seconds)

    @contextmanager
    def timed(self, operation: str, nbytes: int, *, on_device: bool) -> Iterator[None]:
        """Count the block as one ``operation``."""
        if not on_device:
            began = self.now()
            yield
            self.add(operation, nbytes, self.now() - began)
            return
        self.add(operation, nbytes, 0.0)
        self._collect()
        begin, end = _event(), _event()
        begin.record()
        yield
        end.record()
        self._queued.append((operation, begin, end))

    def add(self, operation: str, nbytes: int, seconds: float) -> None:
        """Count one that has ended."""
        self._bytes[operation] += nbytes
        self._seconds[operation] += seconds

    def forget(self) -> None:
        """Begin at 0 again."""
        for totals in (self._bytes, self._seconds):
            totals.update(dict.fromkeys(totals, 0))

    def __deepcopy__(self, memo: dict[int, object]) -> "CollectiveUse":
        """A copied head has used nothing yet; the device's events belong to the original."""
        return CollectiveUse(self.now, list(self._bytes))

    def _collect(self) -> None:
        while self._queued and _is_done(self._queued[0][2]):
            operation, begin, end = self._queued.popleft()
            self._seconds[operation] += begin.elapsed_time(end) / 1000


def _is_done(event: torch.cuda.Event) -> bool:
    done: bool = event.query()  # type: ignore[no-untyped-call]
    return done


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
