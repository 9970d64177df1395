"""Balanced batches: P identities with K images each, the same at every world size and resumed by position alone.

The definition, for I identities that have images (ids without images do not count) and n images:

- The run is one endless row of batches; batch k of epoch e is number e * T + k of it. T = n // (P * K), but at least
  one, are called an epoch: as many images as an ordinary epoch takes. Every batch is full, so ``drop_last`` makes no
  difference.
- I // P batches are a **pass**: they visit P identities each, all different, in a new order in each pass; passes run on
  from one epoch into the next. The I mod P identities that a pass leaves out are the next ones of a fixed
  circle, so at the end of any pass no identity has been visited more than once oftener than another.
- A visit takes the next K images of that identity's own endless row, in which all its images come once before one comes
  again, in an order that changes (``round_robin.py``). So an identity's images are used without replacement, also
  across epochs, and the images of one visit are different wherever the identity has K of them. An identity
  with fewer repeats them as evenly as possible.

Consequences to know: each identity is seen equally often, whatever its number of images, so an image of a rare identity
comes more often than one of a frequent identity; and an epoch is not "every image once". An image that comes twice in
an epoch is augmented equally both times, because augmentation depends on (seed, epoch, index) alone.

In the batch the K images of an identity are neighbours: a rank gets whole identities wherever the world size divides P.
"""

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import DataError
from data_pipeline.identity_index import IdentityIndex
from data_pipeline.permutation import ROUNDS_FOR_FEW, permute, random_words
from data_pipeline.purposes import IDENTITIES, IDENTITY_PASS, IMAGE_PASS, IMAGES
from data_pipeline.round_robin import round_robin


class BalancedOrder:
    """The order of P identities x K images a batch. See the head of this file for what it promises.

    ``num_places`` is the images that an epoch takes, T * P * K.

    Raises:
        DataError: P is larger than the number of identities with images.
    """

    def __init__(self, identities: NDArray[np.int64], seed: int, per_batch: int, images_each: int) -> None:
        """``identities``: [n], of every image. P is ``per_batch``, K is ``images_each``."""
        self._index = IdentityIndex(identities)
        if per_batch > len(self._index):
            raise DataError(
                f"identities_per_batch is {per_batch} but the data set has images of {len(self._index)} identities "
                "only: make it smaller and images_per_identity larger"
            )
        self._seed = seed
        self._per_batch = per_batch
        self._images_each = images_each
        global_batch = per_batch * images_each
        self.num_places = max(1, len(identities) // global_batch) * global_batch

    def images_at(self, places: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
        """Positions in the data set [m] of the images at ``places`` [m] of an epoch."""
        # A batch is P visits of K images, so places and visits count on alike.
        place = epoch * self.num_places + places
        identities, visits = self._visited(place // self._images_each)
        chosen = round_robin(
            visits * self._images_each + place % self._images_each,
            self._index.counts[identities],
            self._images_each,
            (self._seed, IMAGES, identities),
            (self._seed, IMAGE_PASS, identities),
        )
        return self._index.images(identities, chosen)

    def _visited(self, visits: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each visit [m] of the run: which identity it is to, and how many visits that one has had before."""
        count, per_batch = len(self._index), self._per_batch
        in_a_pass = count // per_batch * per_batch
        number, place = visits // in_a_pass, visits % in_a_pass
        # The circle moves on by as many as a pass leaves out.
        passed = number * (count - in_a_pass)
        keys = random_words(self._seed, IDENTITY_PASS, number, count=ROUNDS_FOR_FEW)
        on_circle = (passed + count - in_a_pass + permute(place, in_a_pass, keys)) % count
        identities = permute(on_circle, count, random_words(self._seed, IDENTITIES, count=ROUNDS_FOR_FEW))
        times_left_out = passed // count + (on_circle < passed % count)
        return identities, number - times_left_out
