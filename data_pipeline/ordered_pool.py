"""Work for several processes whose results come back in the order of the jobs, a bounded number ahead."""

import errno
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_QUEUED_PER_WORKER = 4


def in_order(function: Callable[..., T], jobs: Iterable[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """``function(*job)`` for each job, in their order, by ``workers`` processes (1: by this one).

    Jobs are taken from their iterator only as results are taken from this one, so memory stays bounded. The function
    is importable by name. An exception in a worker is raised here. Workers leave Ctrl-C to this process, and end
    when it is killed.

    Raises:
        ChildProcessError: a worker was killed.
    """
    if workers == 1:
        for job in jobs:
            yield function(*job)
        return
    # Spawned, because a forked child of a process with threads (torch, DALI) may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_serve_parent) as pool:
        source = iter(jobs)
        pending: deque[Future[T]] = deque()
        try:
            while True:
                for job in islice(source, workers * _QUEUED_PER_WORKER - len(pending)):
                    pending.append(pool.submit(function, *job))
                if not pending:
                    return
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(errno.ECHILD, "a worker process was killed: is there enough memory?") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _serve_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        Thread(target=_leave_with, args=(parent.sentinel,), daemon=True).start()


def _leave_with(sentinel: int) -> None:
    # A pool's worker holds both ends of its queue, so it would wait for ever for jobs of a parent that was killed.
    connection.wait([sentinel])
    os._exit(1)
