"""InsightFace's header and range records against the images that they speak of.

Record 0 says [first, end) of the range records' keys; each range record says [start, stop) of the keys of one
identity's images. Both are float32, exact below 2**24; a larger data set is left unchecked here.
"""

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_pipeline.record import MAX_SCALAR

_UNKNOWN = -1
_LARGEST_KEY = (1 << 63) - 2  # the next one fits, too


class RangeCheck:
    """Takes images and header records in the order of the file, and tells at the end what does not fit.

    Keeps a run of images of one identity as three numbers and a range record as four, so a file in identity order
    costs 56 bytes an identity.
    Records that are damaged, and so unknown, contradict nothing.
    """

    def __init__(self) -> None:
        self._starts, self._stops, self._identities = array("q"), array("q"), array("q")
        self._places = array("q")  # of each range record: offset, key
        self._labels = array("d")  # of each range record: first key, key behind the last
        self._announced: tuple[int, float, float] | None = None  # of the global header: offset, labels
        self._last = 0  # largest key of an image

    def add_image(self, key: int, identity: int) -> None:
        """The next image in the file; identity -1: its label is damaged."""
        if key > _LARGEST_KEY:
            return  # a damaged header, of a record that no index names
        self._last = max(self._last, key)
        if identity == _UNKNOWN or (self._announced and self._announced[1] == self._announced[2]):
            return  # no range records are announced, so there is nothing to remember
        if self._starts and self._identities[-1] == identity and self._stops[-1] <= key:
            self._stops[-1] = key + 1
        else:
            self._starts.append(key)
            self._stops.append(key + 1)
            self._identities.append(identity)

    def add_header(self, offset: int, key: int, first: float, second: float) -> None:
        """The next header or range record."""
        if key > _LARGEST_KEY:
            return
        if key == 0:
            self._announced = self._announced or (offset, first, second)
        else:
            self._places.extend((offset, key))
            self._labels.extend((first, second))

    def findings(self) -> Iterator[tuple[int, int, str]]:
        """(key, offset, message) of the records that contradict the images."""
        if self._announced is None:
            return  # no global header, so nobody reads the others
        offset, first, end = self._announced
        num_ranges = len(self._places) // 2
        if first != first or end != end:
            yield 0, offset, "holds no numbers"
            return
        if not (first < MAX_SCALAR and end < MAX_SCALAR):
            return  # float32 is not exact there
        if not (first.is_integer() and end.is_integer() and self._last < first <= end):
            yield 0, offset, f"says that range records have the keys [{first:g}, {end:g}); images end at {self._last}"
        elif end - first != num_ranges:
            yield 0, offset, f"announces {end - first:g} range records; {num_ranges} are there"
        if not self._starts or not num_ranges:
            return
        wrong, covered = self._compare()
        for place in wrong.tolist():
            start, stop = self._labels[2 * place], self._labels[2 * place + 1]
            message = f"says that the keys [{start:g}, {stop:g}) are all images of one identity"
            yield self._places[2 * place + 1], self._places[2 * place], message
        if covered < len(self._starts):
            yield 0, offset, f"{len(self._starts) - covered} runs of images are in no range record"

    def _compare(self) -> tuple[NDArray[np.int64], int]:
        """Which range records are wrong, and how many runs of images lie in one."""
        starts, stops, identities = (np.array(each) for each in (self._starts, self._stops, self._identities))
        order = np.argsort(starts, kind="stable")
        starts, stops, identities = starts[order], stops[order], identities[order]
        changes = np.concatenate([[0], np.cumsum(identities[1:] != identities[:-1])])
        first, end = np.array(self._labels).reshape(-1, 2).T
        low = np.maximum(np.searchsorted(starts, first, "right") - 1, 0)
        low += stops[low] <= first
        high = np.searchsorted(starts, end, "left")  # runs [low, high) have keys in the range
        some = (high > low) & (first <= end)
        lowest, highest = np.minimum(low, len(starts) - 1), np.maximum(high - 1, 0)
        fits = (starts[lowest] >= first) & (stops[highest] <= end) & (changes[lowest] == changes[highest])
        return np.flatnonzero(~(first <= end) | (some & ~fits)), int((high - low)[some].sum())
