"""What the loader hands out, and what it hands to a decoder.

Shapes: B images of one rank's batch (may be 0 in a partial last batch), H = W = image size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data_pipeline.augmentation_draws import Draws
from data_pipeline.errors import Reason


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One rank's part of a global batch, all on one device.

    images: [B, 3, H, W] float32 RGB in [-1, 1]. identities: [B] int64. indices: [B] int64, positions in the data set.
    """

    images: torch.Tensor
    identities: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class EncodedBatch:
    """The same before decoding.

    indices, identities: [B] int64; jpegs: B encoded images; flips: [B] bool; draws: what else happens to them, None
    where nothing else is configured; skipped: why images that belong here were replaced by others, one reason for each.
    """

    indices: NDArray[np.int64]
    identities: NDArray[np.int64]
    jpegs: Sequence[bytes]
    flips: NDArray[np.bool_]
    draws: Draws | None = None
    skipped: tuple[Reason, ...] = ()


class BadImageError(ValueError):
    """Images of a batch cannot be decoded: ``details`` says why of each, by its place in the batch."""

    def __init__(self, details: dict[int, str]) -> None:
        super().__init__(next(iter(details.values())))
        self.details = details


class Decoder(Protocol):
    """Turns encoded batches into images, in order, some of them ahead of time.

    An image is augmented as drawn, resized to the image size where it has another, mirrored where its flip is set,
    and scaled: (value - 127.5) / 127.5.
    """

    def submit(self, batch: EncodedBatch) -> None:
        """Start decoding a batch of at least one image."""

    def collect(self) -> Callable[[], torch.Tensor]:
        """The oldest batch submitted, once it is decoded: a function that makes its images [B, 3, H, W].

        Whoever submits the next batch before calling it has the decoder at work meanwhile. The tensor owns its memory.

        Raises:
            BadImageError: some of them cannot be decoded, all of which it names; nothing is in flight afterwards.
        """

    def clear(self) -> None:
        """Forget what is in flight."""
