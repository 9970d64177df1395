"""Makes a data set of synthetic identities: real JPEG RecordIO to train on, and pairs of other identities to verify.

A drawing depends on (seed, identity, image number) alone, so any number of workers writes the same bytes.
"""

import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipeline.errors import DataError
from data_pipeline.pairs import write_pairs
from data_pipeline.properties import Properties, write_properties
from data_pipeline.synthetic_photo import photograph
from data_pipeline.synthetic_traits import Traits, draw_traits
from data_pipeline.writer import RecordWriter

FOLDS = 10
UNSEEN_START = 1 << 31  # training identities are below: however many there are, the unseen ones stay the same
_TRAITS_STREAM, _PHOTO_STREAM, _PAIRS_STREAM = range(3)
_QUEUED_PER_WORKER = 4
_PHOTOS_PER_JOB = 32
_FILES = ("verification.bin", "property", "train.idx", "train.rec")  # published in this order

Photo = tuple[int, int]  # identity, image number


def synthetic_traits(seed: int, identity: int) -> Traits:
    """The traits of one synthetic identity."""
    return draw_traits(np.random.default_rng([seed, _TRAITS_STREAM, identity]))


def synthetic_photo(seed: int, identity: int, image: int, image_size: int = 112) -> bytes:
    """Photograph number `image` of a synthetic identity: a JPEG of image_size x image_size pixels, RGB."""
    generator = np.random.default_rng([seed, _PHOTO_STREAM, identity, image])
    return photograph(synthetic_traits(seed, identity), generator, image_size)


def synthesize(
    output: Path,
    *,
    identities: int,
    images_per_identity: int,
    unseen_identities: int,
    pairs: int,
    image_size: int = 112,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Write a data set of synthetic identities into the folder `output`.

    train.rec, train.idx, property: `identities` x `images_per_identity` JPEGs, in identity order.
    verification.bin: `pairs` pairs of photographs of `unseen_identities` other identities, no photograph twice; ten
    folds one after another, each with its same pairs first and as many different ones after, as LFW is laid out.

    Raises `DataError` when an argument makes no sense or the folder holds a train.rec. All files appear, or none.
    """
    output = Path(output)
    _check(identities, images_per_identity, unseen_identities, pairs, image_size, seed, workers)
    if (output / "train.rec").exists():
        raise DataError(f"{output}: already holds a train.rec; name another folder, or remove it first")
    training = ((identity, image) for identity in range(identities) for image in range(images_per_identity))
    photos, same = verification_photos(unseen_identities, pairs, seed)
    total = identities * images_per_identity + len(photos)
    is_new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".synth-", dir=output) as name,
            tqdm(total=total, unit="image", desc="drawing", disable=None) as progress,
        ):
            stage = Path(name)
            with RecordWriter(stage / "train.rec") as writer:
                for (identity, _), jpeg in _drawn(training, seed, image_size, workers):
                    writer.write(identity, jpeg)
                    progress.update()
            jpegs = []
            for _, jpeg in _drawn(iter(photos), seed, image_size, workers):
                jpegs.append(jpeg)
                progress.update()
            write_pairs(stage / "verification.bin", jpegs, same)
            write_properties(stage, Properties(identities, image_size, image_size))
            for file in _FILES:
                (stage / file).replace(output / file)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror}); name a folder you can write") from error
    finally:
        if is_new and output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def verification_photos(unseen_identities: int, pairs: int, seed: int) -> tuple[list[Photo], NDArray[np.bool_]]:
    """Which photographs make the pairs: 2 * `pairs` of them, and the flags [pairs].

    Same pairs go round the identities evenly; a different pair is two identities at random.
    """
    generator = np.random.default_rng([seed, _PAIRS_STREAM])
    half = pairs // (2 * FOLDS)
    same = np.tile(np.repeat([True, False], half), FOLDS)
    rounds = iter(
        np.concatenate([generator.permutation(unseen_identities) for _ in range(pairs // unseen_identities + 1)])
    )
    photos: list[Photo] = []
    for is_same in same:
        one = int(next(rounds)) if is_same else int(generator.integers(unseen_identities))
        other = one if is_same else (one + int(generator.integers(1, unseen_identities))) % unseen_identities
        photos += [(UNSEEN_START + one, len(photos)), (UNSEEN_START + other, len(photos) + 1)]
    return photos, same


def _check(
    identities: int,
    images_per_identity: int,
    unseen_identities: int,
    pairs: int,
    image_size: int,
    seed: int,
    workers: int,
) -> None:
    bounds = {
        "identities": (identities, 1, UNSEEN_START),
        "images_per_identity": (images_per_identity, 1, 1 << 31),
        "unseen_identities": (unseen_identities, 2, UNSEEN_START),
        "pairs": (pairs, 2 * FOLDS, 1 << 30),
        "image_size": (image_size, 16, 1024),
        "seed": (seed, 0, (1 << 32) - 1),
        "workers": (workers, 1, 1024),
    }
    for name, (value, low, high) in bounds.items():
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise DataError(f"{name} = {value!r}: give a whole number from {low} to {high}")
    if pairs % (2 * FOLDS):
        raise DataError(
            f"pairs = {pairs}: give a multiple of {2 * FOLDS}, for {FOLDS} folds of as many same as different"
        )


def _drawn(photos: Iterator[Photo], seed: int, image_size: int, workers: int) -> Iterator[tuple[Photo, bytes]]:
    """The photographs in the order asked for, drawn by `workers` processes (1: by this one)."""
    if workers == 1:
        for photo in photos:
            yield photo, synthetic_photo(seed, *photo, image_size)
        return
    # Spawned, because a forked child of a process with threads (torch, DALI) may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        pending: deque[tuple[list[Photo], Future[list[bytes]]]] = deque()
        try:
            while True:
                while len(pending) < workers * _QUEUED_PER_WORKER and (job := list(islice(photos, _PHOTOS_PER_JOB))):
                    pending.append((job, pool.submit(_draw_job, seed, job, image_size)))
                if not pending:
                    return
                job, future = pending.popleft()
                yield from zip(job, future.result(), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def _draw_job(seed: int, photos: list[Photo], image_size: int) -> list[bytes]:
    return [synthetic_photo(seed, *photo, image_size) for photo in photos]
