"""What is wrong with one image."""

from typing import NamedTuple

from data_pipeline.errors import Reason


class Fault(NamedTuple):
    """A reason of the closed set, and a few words on what exactly is wrong."""

    reason: Reason
    detail: str
