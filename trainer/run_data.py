"""The training images of a run, as its configuration says."""

from dataclasses import dataclass

from data_pipeline import RecordReader, check_identities, make_loader
from data_pipeline.decoders import DecoderName
from data_pipeline.loader import Loader
from trainer.agreement import first_rank_decides
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.world import World


@dataclass(frozen=True)
class Data:
    """The training images as this rank reads them."""

    loader: Loader
    num_identities: int


def open_data(config: Config, world: World) -> Data:
    """Open and check the records. Raises DataError for input that cannot be trained on."""
    reader = open_records(config)
    num_identities = config.data.num_identities or reader.num_identities
    # Reads every record's header: once is enough.
    first_rank_decides(world, lambda: check_identities(reader, num_identities))
    return Data(open_loader(config, reader, world, decoder=config.data.decoder), num_identities)


def open_records(config: Config) -> RecordReader:
    """Of all shards. Raises DataError for files that are missing, cut, or not what they should be."""
    return RecordReader(config.data.record_files(), skip_bad=config.data.bad_images == "skip")


def open_loader(config: Config, reader: RecordReader, world: World, *, decoder: DecoderName) -> Loader:
    """This rank's part. Raises DataError or ConfigError where the configured batches cannot be made of the images."""
    loader = make_loader(
        reader,
        batch_size=config.data.batch_size,
        rank=world.rank,
        world_size=world.world_size,
        seed=config.run.seed,
        order=config.data.order,
        drop_last=config.data.drop_last,
        decoder=decoder,
        device=world.device,
        image_size=config.data.image_size,
        augmentation=config.data.build_augmentation(),
        num_threads=config.data.threads,
        prefetch=config.data.prefetch,
        block_images=config.data.block_images,
        window_blocks=config.data.window_blocks,
        identities_per_batch=config.data.identities_per_batch,
        images_per_identity=config.data.images_per_identity,
        bad_images=config.data.bad_images,
        max_bad_images=config.data.max_bad_images,
        wrong_size=config.data.wrong_size,
    )
    if config.backbone.normalization == "batch":
        _check_local_batches(config, loader)
    return loader


def _check_local_batches(config: Config, loader: Loader) -> None:
    """Raise ConfigError where batch normalisation would see a single image."""
    pieces = config.train.micro_batches
    if config.data.batch_size // pieces < 2:
        raise ConfigError(
            f"train.micro_batches = {pieces} leaves {config.data.batch_size // pieces} of a rank's "
            f"{config.data.batch_size} images in a micro-batch, but batch normalisation needs at least 2: make it "
            "smaller, data.batch_size larger, or choose another backbone.normalization"
        )
    largest = -(-loader.smallest_global_batch // loader.world_size)
    fewest = loader.smallest_batch // min(pieces, max(1, largest))
    if fewest < 2:
        cut = "" if pieces == 1 else f", {fewest} of them in a micro-batch"
        raise ConfigError(
            f"data.drop_last = false: the last batch of an epoch has {loader.smallest_global_batch} images, so a "
            f"rank of {loader.world_size} gets {loader.smallest_batch}{cut}, but batch normalisation needs at least 2: "
            "set data.drop_last = true, change data.batch_size or choose another backbone.normalization"
        )
