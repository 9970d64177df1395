"""``checkpoint.json``: position, configuration, metrics so far and index of a checkpoint, with a checksum of itself."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from data_pipeline.pending_file import write_file
from trainer.checkpoint.storage import DamagedCheckpointError
from trainer.errors import ConfigError

FORMAT_VERSION = 4
NAME = "checkpoint.json"

Count = Annotated[int, Field(ge=0, strict=True)]
AtLeastOne = Annotated[int, Field(ge=1, strict=True)]


@dataclass(frozen=True)
class Score:
    """Verification accuracy of a checkpoint's weights, on the pairs named (or "mean": of all pair sets)."""

    pairs: str
    accuracy: Annotated[float, Field(ge=0.0, le=1.0, strict=True)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Description:
    """Everything of a checkpoint but the numbers.

    samples: seen by all ranks. loader: position of the data. written: seconds since 1970. score: None where these
    weights were not verified. config: of the run. shared, ranks: states of all ranks alike and of each, as
    :func:`trainer.checkpoint.tree.split_tree` leaves them. tensors: the index of
    :class:`trainer.checkpoint.storage.RawWriter`.
    """

    step: Count
    samples: Count
    loader: dict[str, Any]
    written: float
    score: Score | None
    world_size: AtLeastOne
    num_classes: AtLeastOne
    embedding_dim: AtLeastOne
    config: dict[str, Any]
    shared: dict[str, Any]
    ranks: list[dict[str, Any]]
    tensors: dict[str, dict[str, Any]]

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(chunk["size"] for entry in self.tensors.values() for chunk in entry["chunks"])

    def write(self, folder: Path) -> None:
        """Write it whole or not at all, synced; an older one is replaced. Raises OSError."""
        write_file(folder / NAME, _file_text(FORMAT_VERSION, asdict(self)))


_check = TypeAdapter(Description)


def read_description(folder: Path) -> Description:
    """The description of a checkpoint folder.

    Raises ConfigError when it is of another format, DamagedCheckpointError when it is not what was written, or gone.
    """
    path = folder / NAME
    try:
        text = path.read_bytes().decode("ascii")
    except OSError as error:
        raise DamagedCheckpointError(f"{path}: {error.strerror}; use another checkpoint") from None
    except ValueError as error:
        raise DamagedCheckpointError(f"{path}: damaged ({error}); use another checkpoint") from None
    try:
        found = json.loads(text)
        version, content = found["version"], found["content"]
        # Written again it must be the same to the byte: a change that means the same to JSON is a change, too.
        if not isinstance(version, int) or text != _file_text(version, content):
            raise ValueError("its checksum does not match")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path}: damaged ({error}); use another checkpoint") from None
    if version != FORMAT_VERSION:
        raise ConfigError(f"{path}: format {version}, this version of pfc reads {FORMAT_VERSION}")
    try:
        return _check.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DamagedCheckpointError(f"{path}: {where}: {first['msg']}; use another checkpoint") from None


def write_score(folder: Path, score: Score) -> None:
    """Note what a checkpoint's weights were worth, found after it was written. Raises OSError or ConfigError."""
    replace(read_description(folder), score=score).write(folder)


def _file_text(version: int, content: dict[str, Any]) -> str:
    """The file: ``version``, then SHA-256 of version and content, then the content."""
    body = json.dumps(content)
    checksum = hashlib.sha256(f"{version} {body}".encode()).hexdigest()
    return f'{{"version": {version}, "sha256": "{checksum}", "content": {body}}}\n'
