"""What several containers print, as one stream of lines."""

import queue
import threading
from collections.abc import Iterator, Sequence

from deploy.submit.docker_engine import lines_of


def merged_lines(containers: Sequence[str], *, follow: bool) -> Iterator[str]:
    """Each container's lines in their order, behind its name where there are several.

    follow: as they come, until all containers have ended; else one container's after the other's.
    """
    words = ["logs", *(["--follow"] if follow else [])]
    if len(containers) == 1:
        yield from lines_of(*words, containers[0])
    elif not follow:
        for name in containers:
            yield from (f"{name} | {line}" for line in lines_of(*words, name))
    else:
        yield from _as_they_come([(name, lines_of(*words, name)) for name in containers])


def _as_they_come(sources: Sequence[tuple[str, Iterator[str]]]) -> Iterator[str]:
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read(name: str, source: Iterator[str]) -> None:
        try:
            for line in source:
                lines.put(f"{name} | {line}")
        finally:
            lines.put(None)

    for name, source in sources:
        # A reader that nobody hears any more, after Ctrl-C, must not keep the process.
        threading.Thread(target=read, args=(name, source), name=f"pfc-logs-{name}", daemon=True).start()
    left = len(sources)
    while left:
        line = lines.get()
        if line is None:
            left -= 1
        else:
            yield line
