"""What becomes of an image that cannot be used: an error, or a stand-in and a count, up to a limit."""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from data_pipeline.errors import BadRecordError, DataError, Reason
from data_pipeline.image_fault import ImageCheck
from data_pipeline.reader import RecordReader
from data_pipeline.record import Record
from data_pipeline.replacement import MAX_ATTEMPTS, replacement

BadImagesPolicy = Literal["raise", "skip"]
WrongSizePolicy = Literal["resize", "bad"]

_DEFAULT_SHARE, _DEFAULT_COUNT = 0.01, 10
_SHOWN = 5  # places in the message when there are too many


class SoundRecords(NamedTuple):
    """Images that passed the check: where they lie [n], whose they are [n], their bytes (n), and why others that were
    asked for did not come.
    """

    indices: NDArray[np.int64]
    identities: NDArray[np.int64]
    jpegs: Sequence[bytes]
    skipped: list[Reason]


class BadImages:
    """Reads images by position, and knows which of them are bad.

    Policy "raise": the first bad image is an error. Policy "skip": another image takes its place, chosen by
    ``replacement``; more than ``limit`` different bad images are an error. What is known to be bad is not tried
    again, which changes no result.

    Safe to use from several threads.
    """

    def __init__(self, reader: RecordReader, *, policy: BadImagesPolicy, limit: int, check: ImageCheck) -> None:
        self.limit = limit
        self.first: dict[Reason, str] = {}  # the first bad image of each reason: its file, record, byte and fault
        self._reader = reader
        self._policy = policy
        self._check = check
        self._reasons: dict[int, Reason] = {}
        self._examples: list[str] = []
        self._lock = threading.Lock()

    @property
    def known(self) -> int:
        """Different bad images met so far."""
        return len(self._reasons)

    def read(self, wanted: NDArray[np.int64], *, seed: int, epoch: int) -> SoundRecords:
        """The images at the positions ``wanted`` [n], with sound ones in the places of the bad.

        Raises:
            BadRecordError: a bad image, and the policy is to raise.
            DataError: more bad images than the limit, or no sound one to be found.
        """
        return self._all_sound(wanted) or self._one_by_one(wanted.tolist(), seed=seed, epoch=epoch)

    def _all_sound(self, wanted: NDArray[np.int64]) -> SoundRecords | None:
        """Nearly every batch: nothing is wrong, and reading it in one call is faster. None where something is."""
        if not self._reasons.keys().isdisjoint(wanted.tolist()):
            return None
        try:
            rows = self._reader.read_rows(wanted, self._check.known_header)
            if rows is not None:
                identities, images, unknown = rows
                sound = not any(self._check(images[place]) for place in unknown)
                return SoundRecords(wanted, identities, images, []) if sound else None
            identities, jpegs = self._reader.read_batch(wanted)
        except BadRecordError:
            return None
        return None if any(map(self._check, jpegs)) else SoundRecords(wanted, identities, jpegs, [])

    def _one_by_one(self, wanted: Sequence[int], *, seed: int, epoch: int) -> SoundRecords:
        indices: list[int] = []
        records: list[Record] = []
        skipped: list[Reason] = []
        for first in wanted:
            index, record = first, self._sound(first)
            attempt = 0
            while record is None:
                if attempt == MAX_ATTEMPTS:
                    raise DataError(f"no sound image in {attempt} tries to replace image {first}: {self._way_out()}")
                index = replacement(first, attempt, seed=seed, epoch=epoch, num_images=len(self._reader))
                record = self._sound(index)
                attempt += 1
            if attempt:
                skipped.append(self._reasons[first])
            indices.append(index)
            records.append(record)
        identities = np.array([record.identity for record in records], dtype=np.int64)
        return SoundRecords(np.array(indices, dtype=np.int64), identities, [record.jpeg for record in records], skipped)

    def add(self, index: int, reason: Reason, detail: str, identity: int | None = None) -> None:
        """Take note of a bad image.

        Raises:
            BadRecordError: the policy is to raise.
            DataError: there are more than the limit now.
        """
        whose = "" if identity is None else f"identity {identity}; "
        place = f"image {index} ({whose}{self._reader.describe(index)})"
        verb = "is bad" if reason == "wrong_size" else "cannot be decoded"
        if self._policy == "raise":
            raise BadRecordError(reason, f"{place} {verb}: {detail}; {self._way_out()}")
        self._remember(index, reason, f"{place}: {reason}: {detail}")

    def _sound(self, index: int) -> Record | None:
        """The image at ``index`` where nothing is wrong with it."""
        if index in self._reasons:
            return None
        try:
            record = self._reader[index]
        except BadRecordError as error:
            if self._policy == "raise":
                raise
            self._remember(index, error.reason, f"image {index}: {error.reason}: {error}")
            return None
        if fault := self._check(record.jpeg):
            self.add(index, fault.reason, fault.detail, record.identity)
            return None
        return record

    def _remember(self, index: int, reason: Reason, example: str) -> None:
        with self._lock:
            self._reasons.setdefault(index, reason)
            self.first.setdefault(reason, example)
            if len(self._examples) < _SHOWN and example not in self._examples:
                self._examples.append(example)
            if len(self._reasons) > self.limit:
                counts = ", ".join(f"{count} {name}" for name, count in Counter(self._reasons.values()).most_common())
                raise DataError(
                    f"{len(self._reasons)} bad images ({counts}) are more than max_bad_images allows "
                    f"({self.limit} of {len(self._reader)}), the first: {' | '.join(self._examples)}; "
                    f"find them all with: pfc data verify {self._reader.paths[0]}"
                )

    def _way_out(self) -> str:
        return (
            f"find all such images with: pfc data verify {self._reader.paths[0]}, then pack the data again without "
            'them, or train past them with bad_images = "skip"'
        )


def make_bad_images(
    reader: RecordReader,
    *,
    policy: BadImagesPolicy,
    max_bad_images: int | float | None,
    wrong_size: WrongSizePolicy,
    image_size: int,
) -> BadImages:
    """Check the arguments as ``make_loader`` gets them.

    Raises:
        DataError: an unknown policy, or a limit that is neither a count nor a share.
    """
    if policy not in get_args(BadImagesPolicy) or wrong_size not in get_args(WrongSizePolicy):
        raise DataError(
            f"bad_images {policy!r} with wrong_size {wrong_size!r}: they are raise or skip, and resize or bad"
        )
    count = len(reader)
    if max_bad_images is None:
        limit = max(_DEFAULT_COUNT, int(_DEFAULT_SHARE * count))
    elif isinstance(max_bad_images, int) and max_bad_images >= 0:
        limit = max_bad_images
    elif isinstance(max_bad_images, float) and 0 <= max_bad_images < 1:
        limit = int(max_bad_images * count)
    else:
        raise DataError(
            f"max_bad_images is {max_bad_images}: give a count of images (1000) or a share of them below 1 (0.01)"
        )
    return BadImages(reader, policy=policy, limit=limit, check=ImageCheck(image_size if wrong_size == "bad" else None))
