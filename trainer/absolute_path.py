"""A path of a configuration, made absolute: the resolved configuration then means the same from any folder."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
"""Relative paths count from the current directory; ``~`` is the home folder."""
