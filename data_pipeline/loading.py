"""A loader from what a caller says: arguments are checked, records opened, order, decoder and faults put together."""

import dataclasses
from collections.abc import Sequence
from typing import get_args

import torch

from data_pipeline import order as sample_order
from data_pipeline.augmentation import Augmentation
from data_pipeline.bad_images import BadImagesPolicy, WrongSizePolicy, make_bad_images
from data_pipeline.blocks import BLOCK_IMAGES, WINDOW_BLOCKS
from data_pipeline.decoders import DecoderName, choose_device, make_decoder
from data_pipeline.epoch_order import beginning, order_of
from data_pipeline.errors import DataError
from data_pipeline.loader import Loader
from data_pipeline.reader import RecordPath, RecordReader


def make_loader(
    records: RecordPath | Sequence[RecordPath] | RecordReader,
    *,
    batch_size: int = 64,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    order: sample_order.Order = "global",
    drop_last: bool = True,
    decoder: DecoderName = "dali",
    device: str | torch.device = "cpu",
    image_size: int = 112,
    flip: bool = True,
    augmentation: Augmentation | None = None,
    num_threads: int = 1,
    prefetch: int = 2,
    block_images: int = BLOCK_IMAGES,
    window_blocks: int = WINDOW_BLOCKS,
    identities_per_batch: int | None = None,
    images_per_identity: int | None = None,
    bad_images: BadImagesPolicy = "raise",
    max_bad_images: int | float | None = None,
    wrong_size: WrongSizePolicy = "resize",
) -> Loader:
    """A loader of this rank's part of every global batch.

    The images of global batch number k of an epoch, and how each is augmented, depend on (seed, epoch, index)
    alone: batch_size x world_size ranks of any split give the same.

    Args:
        records: a ``.rec`` file, a folder of them, a list of these, or a reader.
        batch_size: images per rank and step.
        rank: this rank, in [0, world_size).
        world_size: number of ranks.
        seed: of order and augmentation, in [0, 2**63).
        order: "global" shuffles all images anew in each epoch; "blocks" shuffles blocks of neighbouring images and
            the images of a window of them, so that the disk is read in long stretches; "sequential" keeps the order
            of the records.
        drop_last: leave out the images that do not fill a last global batch; otherwise they are split evenly over
            the ranks, and every rank takes the same number of steps (with no images where there are too few).
        decoder: "dali", or "cpu" (Pillow).
        device: where batches are wanted and DALI decodes: "cpu", "cuda", "cuda:1", or "auto" (cuda where there is one).
        image_size: height and width in pixels; images of another size are resized to it.
        flip: whether images may be mirrored: half of them, or as ``augmentation`` says.
        augmentation: what else may happen to images, drawn anew in each epoch; None: nothing.
        num_threads: decoding threads.
        prefetch: batches decoded ahead of the caller.
        block_images: images a block, of order "blocks"; see ``blocks.py`` for what its sizes mean.
        window_blocks: blocks that are shuffled together; the page cache should hold two such windows.
        identities_per_batch: P of balanced batches: a global batch is P identities with K images each. An epoch is
            then len(records) // (P * K) batches, all full; see ``balanced.py``.
        images_per_identity: K of balanced batches; P * K must be batch_size x world_size.
        bad_images: "raise" makes an image that cannot be used an error; "skip" puts another one in its place, which
            depends on (seed, epoch, index) alone, and counts it in ``loader.skipped``.
        max_bad_images: different bad images that this rank may meet before "skip" gives up: a count, or a share of
            the data set below 1. None: 1% of the images, 10 at least.
        wrong_size: "resize" images of another size, or take them for "bad".

    Raises:
        DataError: an argument out of range, more samples per step than images, unreadable records, no DALI.
    """
    reader = records if isinstance(records, RecordReader) else RecordReader(records, skip_bad=bad_images == "skip")
    for name, value in {
        "batch_size": batch_size, "world_size": world_size, "image_size": image_size,
        "num_threads": num_threads, "prefetch": prefetch,
    }.items():  # fmt: skip
        if value < 1:
            raise DataError(f"{name} is {value}: it must be at least 1")
    if not 0 <= rank < world_size:
        raise DataError(f"rank {rank} is outside [0, {world_size}): give each of the {world_size} ranks its own number")
    if not 0 <= seed < 1 << 63:
        raise DataError(f"seed {seed} is outside [0, 2**63): choose another")
    if decoder not in get_args(DecoderName):
        raise DataError(f"decoder {decoder!r} is unknown: use dali or cpu")
    augmentation = augmentation or Augmentation()
    if not flip:
        augmentation = dataclasses.replace(augmentation, flip=0.0)
    global_batch = batch_size * world_size
    position = beginning(
        seed=seed, num_images=len(reader), global_batch=global_batch, order=order,
        block_images=block_images, window_blocks=window_blocks,
        identities_per_batch=identities_per_batch, images_per_identity=images_per_identity,
    )  # fmt: skip
    if drop_last and global_batch > len(reader):
        raise DataError(
            f"a global batch of {global_batch} ({batch_size} x {world_size} ranks) is larger than the data set of "
            f"{len(reader)} images ({reader.paths[0]}): make batch_size smaller, or set drop_last=False"
        )
    where = choose_device(device)
    opener = make_decoder(decoder, batch_size, image_size, num_threads, prefetch, where, augmentation)
    faults = make_bad_images(
        reader, policy=bad_images, max_bad_images=max_bad_images, wrong_size=wrong_size, image_size=image_size
    )
    return Loader(
        reader, position, order_of(position, reader), rank, world_size, drop_last, augmentation, opener, prefetch,
        where, image_size, faults,
    )  # fmt: skip
