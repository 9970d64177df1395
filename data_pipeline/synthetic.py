"""Makes a data set of synthetic identities: real JPEG RecordIO to train on, and pairs of other identities to verify.

A drawing depends on (seed, identity, image number) alone, so any number of workers writes the same bytes.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipeline.draft import PAIRS, Draft
from data_pipeline.errors import DataError
from data_pipeline.identity_names import IDENTITY_NAMES
from data_pipeline.ordered_pool import in_order
from data_pipeline.pairs import write_pairs
from data_pipeline.pending_file import PendingFile
from data_pipeline.properties import FILE_NAME, Properties, write_properties
from data_pipeline.shard_cut import ShardCut
from data_pipeline.sharded_writer import ShardedWriter
from data_pipeline.synthetic_photo import photograph
from data_pipeline.synthetic_simple import draw_pattern, photograph_pattern
from data_pipeline.synthetic_traits import Traits, draw_traits

FOLDS = 10
UNSEEN_START = 1 << 31  # training identities are below: however many there are, the unseen ones stay the same
_TRAITS_STREAM, _PHOTO_STREAM, _PAIRS_STREAM = range(3)
_PHOTOS_PER_JOB = 32

Photo = tuple[int, int]  # identity, image number
Style = Literal["face", "simple"]


def synthetic_traits(seed: int, identity: int) -> Traits:
    """The traits of one synthetic identity."""
    return draw_traits(np.random.default_rng([seed, _TRAITS_STREAM, identity]))


@lru_cache(maxsize=1)  # an identity's photographs are drawn one after another
def _pattern(seed: int, identity: int) -> NDArray[np.uint8]:
    return draw_pattern(np.random.default_rng([seed, _TRAITS_STREAM, identity]))


def synthetic_photo(seed: int, identity: int, image: int, image_size: int = 112, style: Style = "face") -> bytes:
    """Photograph number `image` of a synthetic identity: a JPEG of image_size x image_size pixels, RGB.

    style: "face" draws faces, "simple" colour patterns (`synthetic_simple`), several times faster.
    """
    generator = np.random.default_rng([seed, _PHOTO_STREAM, identity, image])
    if style == "simple":
        return photograph_pattern(_pattern(seed, identity), generator, image_size)
    return photograph(synthetic_traits(seed, identity), generator, image_size)


def identity_name(seed: int, identity: int, style: Style = "face") -> str:
    """The same for whoever is drawn alike: in every data set of one seed and style."""
    return f"{style}-{seed}-{identity}"


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
    style: Style = "face",
    cut: ShardCut | None = None,
    plain: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a data set of synthetic identities into the folder `output`.

    train.rec, train.idx (or several record shards, by `cut`), property, identities.tsv: `identities` x
    `images_per_identity` JPEGs, in identity order. verification.bin: `pairs` pairs of photographs of
    `unseen_identities` other identities, no photograph twice; ten folds one after another, each with its same pairs
    first and as many different ones after, as LFW is laid out. `plain` leaves out header and range records. Memory
    does not grow with the number of images.

    Raises `DataError` when an argument makes no sense or a data set is there (unless `overwrite`). All files appear,
    or none.
    """
    output = Path(output)
    _check(identities, images_per_identity, unseen_identities, pairs, image_size, seed, workers, style)
    training = ((identity, image) for identity in range(identities) for image in range(images_per_identity))
    photos, same = verification_photos(unseen_identities, pairs, seed)
    total = identities * images_per_identity
    with (
        Draft(output, overwrite=overwrite, extra=[PAIRS]) as draft,
        tqdm(total=total + len(photos), unit="image", desc="drawing", disable=None) as progress,
    ):
        with ShardedWriter(draft.folder, cut=cut, total=total, plain=plain) as writer:
            for jpegs in _drawn(training, seed, image_size, style, workers):
                for jpeg in jpegs:
                    writer.write(writer.num_images // images_per_identity, jpeg)
                progress.update(len(jpegs))
        of_pairs: list[bytes] = []
        for jpegs in _drawn(iter(photos), seed, image_size, style, workers):
            of_pairs += jpegs
            progress.update(len(jpegs))
        write_pairs(draft.folder / PAIRS, of_pairs, same)
        write_properties(draft.folder, Properties(identities, image_size, image_size))
        with PendingFile(draft.folder / IDENTITY_NAMES) as names:
            names.stream.writelines(
                f"{identity}\t{identity_name(seed, identity, style)}\n".encode() for identity in range(identities)
            )
        described = {name: name for name in (PAIRS, FILE_NAME, IDENTITY_NAMES)}
        draft.publish(described | writer.names())


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
    style: str,
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
    if style not in get_args(Style):
        raise DataError(f"style = {style!r}: give one of {', '.join(get_args(Style))}")
    if pairs % (2 * FOLDS):
        raise DataError(
            f"pairs = {pairs}: give a multiple of {2 * FOLDS}, for {FOLDS} folds of as many same as different"
        )


def _drawn(photos: Iterator[Photo], seed: int, size: int, style: Style, workers: int) -> Iterator[list[bytes]]:
    """The photographs in the order asked for, some at a time, drawn by `workers` processes (1: by this one)."""
    jobs = iter(lambda: list(islice(photos, _PHOTOS_PER_JOB)), [])
    return in_order(_draw_job, ((seed, job, size, style) for job in jobs), workers)


def _draw_job(seed: int, photos: list[Photo], image_size: int, style: Style) -> list[bytes]:
    return [synthetic_photo(seed, *photo, image_size, style) for photo in photos]
