"""What a run folder says about its run: the resolved configuration, found again without trusting its shape.

The page must also be drawn for runs of older and newer versions, so a missing table or key is no error here.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError

_LARGEST_CONFIG = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class ResolvedRun:
    """A run's folder and its resolved configuration, parsed and as text."""

    path: Path
    config: Mapping[str, Any]
    config_text: str

    @property
    def metrics_path(self) -> Path:
        """One JSON object per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations_path(self) -> Path:
        """One folder per evaluated step."""
        return self.path / "evaluations"

    @property
    def name(self) -> str:
        """The run's name, else its folder's."""
        name = self.get("run", "name")
        return name if isinstance(name, str) and name else self.path.resolve().name

    def get(self, *keys: str) -> Any:
        """The value at a path of keys, None where any of them is missing."""
        value: Any = self.config
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        return value

    def number(self, *keys: str) -> float | None:
        """The finite number at a path of keys, else None."""
        value = self.get(*keys)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        number = float(value) if abs(value) < 1e300 else math.inf
        return number if math.isfinite(number) else None

    @property
    def loss(self) -> Mapping[str, Any]:
        """Name and parameters of the loss, wherever the head's table keeps them."""
        inner = self.get("head", "loss")
        table: Any = inner if isinstance(inner, Mapping) else self.get("head")
        return table if isinstance(table, Mapping) else {}

    @property
    def loss_name(self) -> str:
        """The loss's name in lower case; empty if not given."""
        for name in (self.get("head", "loss"), self.loss.get("name"), self.loss.get("kind")):
            if isinstance(name, str):
                return name.lower()
        return ""

    def loss_angle(self, key: str) -> float | None:
        """One of SFace's angles a and b in radians, else None."""
        value = self.loss.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= math.pi:
            return None
        return float(value)

    @property
    def _pairs_paths(self) -> list[Path]:
        pairs = self.get("evaluation", "pairs")
        entries = pairs if isinstance(pairs, list) else []
        return [Path(entry) for entry in entries if isinstance(entry, str) and "\0" not in entry]

    @property
    def set_names(self) -> list[str]:
        """The verification sets in the order of the configuration; a set is named after its file."""
        return [path.stem for path in self._pairs_paths]

    def pairs_path(self, name: str) -> Path | None:
        """The pairs file behind a verification set, None if the configuration lists none of this name."""
        return next((path for path in self._pairs_paths if path.stem == name), None)


def read_resolved_run(path: Path) -> ResolvedRun:
    """Open a run folder.

    Raises ConfigError if there is none at ``path``, or if its ``run.toml`` is missing or no TOML.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: no such folder; give the folder of a run, the one that holds run.toml")
    config_path = path / "run.toml"
    if not config_path.is_file():
        raise ConfigError(f"{path}: not a run (no run.toml in it); give the folder that `pfc train` wrote to")
    try:
        if config_path.stat().st_size > _LARGEST_CONFIG:
            raise ConfigError(f"{config_path}: larger than 1 MiB, so no run configuration; restore the file")
        text = config_path.read_text(encoding="utf-8")
        config = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{config_path}: cannot be read ({reason}); restore the run's own run.toml") from error
    return ResolvedRun(path=path, config=config, config_text=text)
