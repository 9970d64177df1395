"""Which images belong to each identity: an index by identity, 4 bytes an image (8 from 2**32 images on)."""

import numpy as np
from numpy.typing import NDArray


class IdentityIndex:
    """Images grouped by identity. Only identities that have images count; they are numbered 0 .. len - 1.

    identities: [i] int64, the identities present, ascending. counts: [i] int64, their numbers of images.
    """

    def __init__(self, identities: NDArray[np.int64]) -> None:
        """``identities``: [n], of every image."""
        small = len(identities) < 1 << 32
        by_identity = np.argsort(identities, kind="stable")
        self._images = by_identity.astype(np.uint32) if small else by_identity
        grouped = identities[by_identity]
        self._starts = np.append(0, np.flatnonzero(grouped[1:] != grouped[:-1]) + 1)
        self.identities = grouped[self._starts]
        self.counts: NDArray[np.int64] = np.diff(self._starts, append=len(identities))

    def __len__(self) -> int:
        return len(self.identities)

    def images(self, numbers: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions in the data set [m]: of identity number ``numbers`` [m], its image number ``places`` [m]."""
        found: NDArray[np.int64] = self._images[self._starts[numbers] + places].astype(np.int64)
        return found
