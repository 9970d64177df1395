"""What the training loop asks of whatever hands it batches."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from data_pipeline import Batch
from data_pipeline.bad_images import BadImages
from data_pipeline.errors import Reason


class BatchSource(Protocol):
    """A :class:`data_pipeline.Loader`, or something in its place; iterating once gives one epoch."""

    bad_images: BadImages

    def __iter__(self) -> Iterator[Batch]: ...

    @property
    def last_global_batch(self) -> int:
        """Samples over all ranks of the batch handed out last."""

    @property
    def skipped(self) -> Mapping[Reason, int]:
        """Images replaced in the batches handed out, by reason."""

    def state_dict(self) -> dict[str, int | str]:
        """The place in the data."""
