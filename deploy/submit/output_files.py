"""Lines of files that are still being written."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

POLL_SECONDS = 0.2


def read_lines(
    files: Callable[[], Mapping[Path, str]], *, follow: bool = False, is_live: Callable[[], bool] = lambda: False
) -> Iterator[str]:
    """Lines of the files that ``files()`` names now, each behind its prefix; lines that came later come later.

    follow: go on as long as ``is_live()``, with files that are new then, too. A last line without an end is given when
    nothing more will come.
    """
    rests: dict[Path, bytes] = {}
    places: dict[Path, int] = {}
    while True:
        goes_on = follow and is_live()  # asked before reading: what is written until it ends is read below
        named = files()
        for path, prefix in named.items():
            try:
                with path.open("rb") as stream:
                    stream.seek(places.get(path, 0))
                    content = rests.get(path, b"") + stream.read()
                    places[path] = stream.tell()
            except FileNotFoundError:
                continue
            *lines, rests[path] = content.split(b"\n")
            for line in lines:
                yield prefix + _text(line)
        if not goes_on:
            break
        time.sleep(POLL_SECONDS)
    for path, prefix in named.items():
        if rests.get(path):
            yield prefix + _text(rests[path])


def _text(line: bytes) -> str:
    """A terminal would show what was written last over the same line."""
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", errors="replace")
