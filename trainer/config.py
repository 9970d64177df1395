"""A run's configuration: one TOML file, checked before anything starts.

Each component owns its own table; this file composes them. Unknown keys are errors that name the nearest key.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from data_pipeline import Augmentation
from data_pipeline.blocks import BLOCK_IMAGES, WINDOW_BLOCKS
from data_pipeline.record_set import record_paths
from trainer.absolute_path import AbsolutePath
from trainer.augmentation_config import AugmentationConfig
from trainer.backbones import BackboneConfig
from trainer.checkpoint_config import CheckpointConfig
from trainer.deepspeed_config import DeepSpeedTable, zero_stage
from trainer.errors import ConfigError
from trainer.evaluation import EvaluationConfig
from trainer.failure_config import FailureConfig
from trainer.growth_config import GrowthConfig
from trainer.head_config import HeadConfig
from trainer.optimizer_config import OptimizerConfig
from trainer.schedule import ScheduleConfig
from trainer.train_config import TrainConfig
from trainer.writers.config import LogConfig


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RunConfig(_Table):
    """Where the run lives and on what it runs."""

    output: AbsolutePath  # folder of checkpoints, metrics and the report
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"  # auto, cpu, cuda, cuda:N
    world_size: Annotated[int, Field(ge=1)] | None = None  # refuse to run on any other number of ranks
    timeout_seconds: Annotated[float, Field(gt=0)] = 600.0  # of any collective


class DataConfig(_Table):
    """The training images."""

    records: AbsolutePath | tuple[AbsolutePath, ...]  # .rec files, or folders that hold a data set
    num_identities: Annotated[int, Field(ge=1)] | None = None  # None: as the property file or the labels say
    identities_sha256: str | None = None  # of the names in identities.tsv; None: whatever they are
    image_size: Annotated[int, Field(ge=32)] = 112
    batch_size: Annotated[int, Field(ge=2)] = 64  # per rank; batch normalisation needs two
    drop_last: bool = True  # leave out the images of an epoch that fill no global batch
    order: Literal["global", "blocks", "sequential"] = "global"
    block_images: Annotated[int, Field(ge=1)] = BLOCK_IMAGES  # of order "blocks": neighbours read in one stretch
    window_blocks: Annotated[int, Field(ge=1)] = WINDOW_BLOCKS  # of order "blocks": how many are shuffled together
    identities_per_batch: Annotated[int, Field(ge=1)] | None = None  # balanced batches: P identities ...
    images_per_identity: Annotated[int, Field(ge=1)] | None = None  # ... x K images = batch_size x ranks
    decoder: Literal["dali", "cpu"] = "dali"
    flip: bool = True
    augmentation: AugmentationConfig | None = None  # None: flips alone
    threads: Annotated[int, Field(ge=1)] = 1
    prefetch: Annotated[int, Field(ge=1)] = 2
    bad_images: Literal["raise", "skip"] = "raise"  # skip: another image takes the place, counted in the metrics
    max_bad_images: int | float | None = None  # per rank: count, or share below 1; None: 1%, at least 10
    wrong_size: Literal["resize", "bad"] = "resize"  # images that are not image_size

    @field_validator("max_bad_images", mode="before")
    @classmethod
    def _count_or_share(cls, limit: object) -> object:
        is_count = isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0
        if limit is not None and not is_count and not (isinstance(limit, float) and 0 <= limit < 1):
            raise ValueError("give a count of images (1000) or a share of them below 1 (0.01)")
        return limit

    def build_augmentation(self) -> Augmentation:
        """What happens to training images."""
        chosen = self.augmentation.build() if self.augmentation else Augmentation()
        return chosen if self.flip else dataclasses.replace(chosen, flip=0.0)

    def record_files(self) -> list[Path]:
        """The ``.rec`` files; a folder stands for the ``train.rec`` in it, or for all its record shards.

        Raises DataError for a folder without any, or where some of a data set's shards are missing.
        """
        return record_paths(self.records)


class MetricsConfig(_Table):
    """The Prometheus exporter: rank r of a machine listens on port + local rank."""

    port: Annotated[int, Field(ge=1, le=65000)] | None = None  # None: no exporter
    address: str = "127.0.0.1"  # "0.0.0.0" for a Prometheus on another machine
    port_in_use: Literal["error", "next"] = "error"  # next: try further ones, as many apart as ranks on the machine
    job: str | None = None  # label of all series; None: name of the run's folder
    unhealthy_after: Annotated[float, Field(gt=1)] = 10.0  # no step for so many times the median of the last ones
    targets_file: AbsolutePath | None = None  # NAME.json that Prometheus reads by file_sd: where all ranks listen

    @model_validator(mode="after")
    def _targets_are_served(self) -> "MetricsConfig":
        if self.targets_file is not None and self.port is None:
            raise ValueError("targets_file lists exporters, and there are none: set metrics.port")
        if self.targets_file is not None and self.targets_file.suffix != ".json":
            raise ValueError("Prometheus reads targets_file as JSON by its name: call it NAME.json")
        return self


class Config(_Table):
    """A whole run."""

    run: RunConfig
    data: DataConfig
    train: TrainConfig
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    deepspeed: DeepSpeedTable | None = None
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    failure: FailureConfig = FailureConfig()
    metrics: MetricsConfig = MetricsConfig()
    log: LogConfig = LogConfig()
    growth: GrowthConfig | None = None  # take over from an older run

    @model_validator(mode="after")
    def _one_origin(self) -> "Config":
        if self.growth is not None and self.backbone.pretrained is not None:
            raise ValueError(
                "growth.from and backbone.pretrained both say where the backbone comes from: leave pretrained out"
            )
        output = self.run.output.resolve()
        if self.growth is not None and output in (source := self.growth.from_.resolve(), *source.parents):
            raise ValueError(
                f"growth.from and run.output are the same run ({self.run.output}): a run that grows gets a new folder, "
                "the old one stays as it is"
            )
        return self

    @model_validator(mode="after")
    def _tables_go_together(self) -> "Config":
        if self.train.micro_batches > self.data.batch_size:
            raise ValueError(
                f"train.micro_batches is {self.train.micro_batches}, more than the {self.data.batch_size} images of "
                "data.batch_size: make it smaller"
            )
        if self.train.engine == "ddp":
            if self.deepspeed is not None:
                raise ValueError("[deepspeed] has no effect with train.engine = 'ddp': set it to 'deepspeed'")
            return self
        if self.backbone.precision == "float16":
            raise ValueError(
                "backbone.precision = 'float16' works with train.engine = 'ddp' alone: with DeepSpeed use 'bfloat16', "
                "which needs no loss scale"
            )
        if self.train.compile and zero_stage(self.deepspeed) == 3:
            raise ValueError(
                "train.compile does not go with deepspeed.zero_optimization.stage = 3, which exchanges the weights "
                "while the network runs: use stage 2 or less"
            )
        return self

    @model_validator(mode="after")
    def _best_checkpoint_is_known(self) -> "Config":
        self.checkpoint.scored_pairs([path.stem for path in self.evaluation.pairs])
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values as TOML and JSON can hold them: paths as text, absent values left out."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)

    def to_toml(self) -> str:
        """The resolved configuration, as written beside the checkpoints."""
        return tomli_w.dumps(self.to_dict())


def load_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read ``path``, apply ``a.b=value`` overrides, check everything.

    Values of overrides are TOML (``0.1``, ``true``, ``["x.bin"]``); what is not TOML is text.
    Raises ConfigError, one line: which key of which file, what is wrong, the nearest known key.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a run configuration in TOML") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return config_from(values, str(path), overrides)


def config_from(values: dict[str, Any], source: str, overrides: Iterable[str] = ()) -> Config:
    """Check plain values; ``source`` names them in errors, overrides go into them. Raises ConfigError as
    :func:`load_config` does.
    """
    for override in overrides:
        _apply(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{source}: {_describe(problems[0])}{more}") from None


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise ConfigError(f"--set {override}: write it as table.key=value")
    table = values
    for name in names[:-1]:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {override}: '{name}' is a value, not a table")
    try:
        table[names[-1]] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        table[names[-1]] = text


def _describe(problem: Any) -> str:
    location = [part for part in problem["loc"] if isinstance(part, str)]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        known = _known_keys()
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.0) or known
        return f"unknown key '{key}'; the nearest known key is '{nearest[0]}'"
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem["input"]
    shown = "" if isinstance(given, dict | list) else f", got {given!r}"
    return f"{key}: {message}{shown}" if key else message


def _known_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        keys.append(key)
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys.extend(_known_keys(kind, f"{key}."))
    return keys
