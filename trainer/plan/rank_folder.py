"""Where a rank writes while it measures."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.last_line import last_line


@contextmanager
def rank_folder(parent: Path) -> Iterator[Path]:
    """A folder in ``parent`` that goes after the block. What cannot be written ends the process with one line."""
    try:
        with tempfile.TemporaryDirectory(dir=parent) as folder:
            yield Path(folder)
    except OSError as error:  # a full disk above all
        error.filename = error.filename or str(parent)
        sys.exit(last_line(error))
