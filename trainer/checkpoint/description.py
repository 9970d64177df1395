"""``checkpoint.json``: position, configuration and index of a checkpoint, with a checksum of itself."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from trainer.checkpoint.storage import DamagedCheckpointError
from trainer.errors import ConfigError

FORMAT_VERSION = 3
FOLDER = "checkpoints"
NAME = "checkpoint.json"


@dataclass(frozen=True)
class Description:
    """Everything of a checkpoint but the numbers.

    loader: position of the data. config: of the run. shared, ranks: states of all ranks alike and of each, as
    :func:`trainer.checkpoint.tree.split_tree` leaves them. tensors: the index of
    :class:`trainer.checkpoint.storage.RawWriter`.
    """

    step: int
    samples: int
    loader: dict[str, Any]
    world_size: int
    num_classes: int
    embedding_dim: int
    config: dict[str, Any]
    shared: dict[str, Any]
    ranks: list[dict[str, Any]]
    tensors: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write it, synced. Raises OSError."""
        content = asdict(self)
        text = json.dumps({"version": FORMAT_VERSION, "sha256": _checksum(content), "content": content})
        with (folder / NAME).open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def read_description(folder: Path) -> Description:
    """The description of a checkpoint folder.

    Raises ConfigError when there is none or of another format, DamagedCheckpointError when it is not what was written.
    """
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{folder}: not a checkpoint, it has no {NAME}") from None
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{path}: cannot be read ({error}); use another checkpoint") from None
    try:
        found = json.loads(text)
        version = found["version"]
        if version == FORMAT_VERSION:
            content = found["content"]
            if found["sha256"] != _checksum(content):
                raise ValueError("its checksum does not match")
            return Description(**{field.name: content[field.name] for field in fields(Description)})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedCheckpointError(f"{path}: damaged ({error}); use another checkpoint") from None
    raise ConfigError(f"{path}: format {version}, this version of pfc reads {FORMAT_VERSION}")


def complete_checkpoints(run_folder: Path, *, before: int | None = None) -> list[Path]:
    """The run's complete checkpoints, oldest first, or those of steps before ``before``; unfinished drafts are not
    among them.
    """
    found = [path.parent for path in (run_folder / FOLDER).glob(f"step_*/{NAME}")]
    by_step = sorted((int(folder.name.removeprefix("step_")), folder) for folder in found)
    return [folder for step, folder in by_step if before is None or step < before]


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
