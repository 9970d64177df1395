"""The run that another one grows from: its checkpoint, opened and checked, and the names of its identities."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline import DataError
from data_pipeline.identity_names import IDENTITY_NAMES, IdentityNames, read_names
from trainer.checkpoint import Description, complete_checkpoints, read_description
from trainer.checkpoint.description import NAME
from trainer.checkpoint.load import read_parts
from trainer.checkpoint.parts import Part
from trainer.checkpoint.storage import RawReader
from trainer.checkpoint.trained import CENTERS
from trainer.checkpoint.tree import TENSOR, empty_tensors, join_tree
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.world import World


@dataclass(frozen=True)
class OldRun:
    """A checkpoint as every rank reads it.

    motions: of each rank that saved, its rows in motion; empty for a head without motion.
    """

    folder: Path
    description: Description
    reader: RawReader
    motions: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: Path, description: Description) -> "OldRun":
        """Raises ConfigError for a checkpoint that does not hold what a run is made of."""
        reader = RawReader(folder, description.tensors)
        try:
            motions = [state["motion"] for state in description.ranks]
            if None in motions:
                motions = []
            for motion in motions:
                int(motion["now"]), motion["shared"], motion["momentum"][TENSOR]
            if not description.shared["backbone"] or len({motion["now"] for motion in motions}) > 1:
                raise ValueError("it is not of one run")
            centers = reader.metadata.state_dict_metadata[CENTERS]
            if tuple(getattr(centers, "size", ())) != (description.num_classes, description.embedding_dim):
                raise ValueError("its centers are not those of its classes")
            for state in description.shared["optimizer"].values():
                state.keys()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{folder}: cannot be grown from ({error}); use another checkpoint") from None
        return cls(folder, description, reader, motions)

    def read(self, saved: Any, *, world: World) -> Any:
        """A part of the description with its tensors, whole, on all ranks. Raises ConfigError on all of them."""
        try:
            tensors = empty_tensors(saved, self.reader.metadata)
        except (KeyError, TypeError, ValueError) as error:  # on every rank: all have the same description
            raise ConfigError(f"{self.folder}: cannot be grown from ({error}); use another checkpoint") from None
        read_parts(self.reader, {name: Part(tensor) for name, tensor in tensors.items()}, world=world)
        return join_tree(saved, tensors)


def find_checkpoint(config: Config) -> tuple[Path, Description]:
    """The checkpoint folder that ``growth.from`` means. Raises ConfigError where it cannot be grown from."""
    assert config.growth is not None
    path = config.growth.from_
    if (path / NAME).exists():
        folder = path
    elif not path.is_dir():
        raise ConfigError(f"growth.from {path}: no such run folder or checkpoint folder")
    else:
        complete = complete_checkpoints(path)
        if not complete:
            raise ConfigError(f"growth.from {path}: holds no complete checkpoint; name a run that has one")
        folder = complete[-1]
    description = read_description(folder)
    _check_fit(config, folder, description)
    return folder, description


def _check_fit(config: Config, folder: Path, description: Description) -> None:
    backbone = description.config.get("backbone", {})
    for key, theirs, ours in (
        ("backbone.name", backbone.get("name"), config.backbone.name),
        ("backbone.embedding_dim", description.embedding_dim, config.backbone.embedding_dim),
    ):
        if theirs != ours:
            raise ConfigError(
                f"growth.from {folder} has {key} {theirs!r}, this run {ours!r}: centers and backbone of one network do "
                f"not fit another; set {key} = {theirs!r}"
            )


def old_names(config: Config, folder: Path, description: Description) -> IdentityNames | None:
    """Names of the old run's identities: of ``growth.identities`` or of the run's folder; None where they are numbers.

    Raises ConfigError or DataError where they are missing or not those that the run was trained with.
    """
    assert config.growth is not None
    path = config.growth.identities or _run_folder(folder) / IDENTITY_NAMES
    names = read_names(path, num_identities=description.num_classes)
    expected = description.config.get("data", {}).get("identities_sha256")
    if names is None:
        if config.growth.identities is not None:
            raise ConfigError(f"growth.identities {path}: no such file")
        if expected is not None:
            raise ConfigError(
                f"{path} is missing: the names that {folder} was trained with; bring it back from the data set's "
                "folder, or name it in growth.identities"
            )
    elif expected is not None and names.sha256 != expected:
        raise DataError(f"{path} does not hold the names that {folder} was trained with: give the file of that run")
    return names


def _run_folder(folder: Path) -> Path:
    """The run that a checkpoint folder RUN/checkpoints/step_... belongs to."""
    return folder.resolve().parents[1]
