"""What collectives cost so far, by operation: payload and seconds, also where the device runs them later."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

OPERATIONS = ("all_gather", "reduce_scatter", "all_reduce")


class CollectiveUse:
    """Totals since this was made. ``now`` gives seconds.

    On the CPU the host waits inside a collective: its time, the wait for slower ranks included, is counted when it
    returns. On a GPU the host only queues it; the device's own events tell, and are asked without waiting for them.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._bytes = dict.fromkeys(OPERATIONS, 0)
        self._seconds = dict.fromkeys(OPERATIONS, 0.0)
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
        self._bytes[operation] += nbytes
        if not on_device:
            began = self._now()
            yield
            self._seconds[operation] += self._now() - began
            return
        self._collect()
        begin, end = _event(), _event()
        begin.record()
        yield
        end.record()
        self._queued.append((operation, begin, end))

    def __deepcopy__(self, memo: dict[int, object]) -> "CollectiveUse":
        """A copied head has used nothing yet; the device's events belong to the original."""
        return CollectiveUse(self._now)

    def _collect(self) -> None:
        while self._queued and _is_done(self._queued[0][2]):
            operation, begin, end = self._queued.popleft()
            self._seconds[operation] += begin.elapsed_time(end) / 1000


def _is_done(event: torch.cuda.Event) -> bool:
    done: bool = event.query()  # type: ignore[no-untyped-call]
    return done


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
