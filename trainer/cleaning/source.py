"""The run that judges its own data: network, class centers, records, and whether those are the run's."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from data_pipeline import DataError, RecordReader, check_identities
from data_pipeline.identity_names import data_set_names
from data_pipeline.record_set import record_paths
from trainer.checkpoint import Description, find_checkpoint, load_backbone, read_description
from trainer.checkpoint.load import read_parts
from trainer.checkpoint.parts import Part
from trainer.checkpoint.storage import RawReader
from trainer.checkpoint.trained import CENTER_DTYPES, CENTERS
from trainer.config import Config
from trainer.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """folder: of the checkpoint. centers: [C, D] float32, as trained. reader: the run's training images."""

    folder: Path
    step: int
    config: Config
    backbone: nn.Module
    centers: Tensor
    reader: RecordReader
    records: list[Path]


def open_source(path: Path, *, which: str | None, records: Path | None, device: torch.device) -> Source:
    """Open a run folder (``which``: newest (None), best or a step) or a checkpoint folder.

    records: where the images are now, None: where the run's configuration says. Raises ConfigError for a run without
    a checkpoint, DataError for records that are not the run's.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such run folder or checkpoint folder")
    folder = find_checkpoint(path, which)
    loaded = load_backbone(folder, device)
    description = read_description(folder)
    files = loaded.config.data.record_files() if records is None else record_paths(records)
    reader = RecordReader(files, skip_bad=loaded.config.data.bad_images == "skip")
    try:
        _check_records(reader, description, loaded.config, folder)
    except BaseException:
        reader.close()
        raise
    return Source(folder, loaded.step, loaded.config, loaded.module, _centers(folder, description), reader, files)


def _check_records(reader: RecordReader, description: Description, config: Config, folder: Path) -> None:
    expected = description.loader.get("num_images")
    where = reader.paths[0]
    if expected is not None and expected != len(reader):
        raise DataError(
            f"{where} holds {len(reader):,} images, {folder} was trained on {expected:,}: give that run's records with "
            "--records"
        )
    try:
        check_identities(reader, description.num_classes)
    except DataError as error:
        raise DataError(f"{where} is not what {folder} was trained on ({error})") from None
    if config.data.identities_sha256 is not None:
        names = data_set_names(reader.paths, reader.identities, description.num_classes)
        if names is None or names.sha256 != config.data.identities_sha256:
            raise DataError(
                f"{where} has other names of identities than {folder} was trained with: give that run's records with "
                "--records"
            )


def _centers(folder: Path, description: Description) -> Tensor:
    reader = RawReader(folder, description.tensors)
    size = (description.num_classes, description.embedding_dim)
    saved = reader.metadata.state_dict_metadata.get(CENTERS)
    if not isinstance(saved, TensorStorageMetadata) or tuple(saved.size) != size:
        raise ConfigError(f"{folder}: holds no centers of its {size[0]:,} classes; use another checkpoint")
    dtype = saved.properties.dtype
    centers = torch.empty(size, dtype=dtype if dtype in CENTER_DTYPES else torch.float32)
    read_parts(reader, {CENTERS: Part(centers)}, world=None)
    return centers.float()
