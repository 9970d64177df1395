"""The folder of a run: one run each, recognised by its resolved configuration.

OUTPUT/  run.toml  identities.tsv  metrics.jsonl  logs/rank_0000.jsonl  evaluations/  checkpoints/  report.html
"""

import tomllib
from pathlib import Path
from typing import Any

from data_pipeline.pending_file import write_file
from trainer.config import Config, config_from
from trainer.errors import ConfigError

RESOLVED = "run.toml"

# Tables that may change between a stop and its continuation: they do not touch what is learned.
FREE_TABLES = ("evaluation", "checkpoint", "failure", "metrics", "log", "deepspeed")
FREE_KEYS = {("run", "output"), ("run", "device"), ("run", "timeout_seconds"), ("run", "world_size")}
FREE_DATA_KEYS = {("data", "threads"), ("data", "prefetch"), ("data", "records")}
# A run that a bad image has stopped may go on past it: what came before was the same either way.
FREE_DATA_KEYS |= {("data", "bad_images"), ("data", "max_bad_images")}
# Images per rank: on another number of ranks it differs, and the loader's position refuses another global batch.
FREE_DATA_KEYS |= {("data", "batch_size")}
# Read before the first checkpoint alone; the old run may move or go afterwards.
FREE_KEYS |= {("growth", "from"), ("growth", "identities"), ("growth", "batch_size")}
# May be added to a run that had none: its data set has got names meanwhile.
ADDABLE = {("data", "identities_sha256")}
OTHER_DATA = ("data.num_identities", "data.identities_sha256")
# How the work of a step is spread: checkpoints are the same from any engine, and pieces add up to the same step.
FREE_KEYS |= {("train", "engine"), ("train", "micro_batches"), ("train", "compile")}
# How class centers are kept: a head of either type, in either memory, reads what the other saved.
FREE_KEYS |= {("head", "center_dtype"), ("head", "center_memory")}


# What a process that was killed while writing leaves behind, besides drafts of checkpoints.
HALF_WRITTEN = (".*.tmp", "evaluations/*/.*.tmp")


def check_run_folder(config: Config) -> None:
    """Raise ConfigError when the run's folder holds another run, naming the first key that differs, or something that
    is no run at all. Writes nothing.
    """
    folder = config.run.output
    resolved = folder / RESOLVED
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"run.output {folder} is a file: name a folder")
    if resolved.exists():
        difference = _first_difference(_read(resolved), config.to_dict())
        if difference is not None:
            advice = "or the same configuration to continue that run"
            if difference.startswith(OTHER_DATA):
                advice += "; [growth] takes its centers over into a new run"
            raise ConfigError(f"run.output {folder} holds another run ({difference}): choose another folder, {advice}")
    elif folder.exists() and set(folder.iterdir()) - set(folder.glob(HALF_WRITTEN[0])):
        raise ConfigError(f"run.output {folder} is not empty and holds no run: choose another folder")


def claim_run_folder(config: Config) -> Path:
    """Make the run's folder, or recognise it as this same run's, to be continued.

    Writes ``run.toml`` (resolved configuration) and removes what a killed process left half-written. Raises ConfigError
    as :func:`check_run_folder`.
    """
    check_run_folder(config)
    folder = config.run.output
    resolved = folder / RESOLVED
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run.output {folder} cannot be made: {error.strerror}") from None
    write_file(resolved, config.to_toml())
    for pattern in HALF_WRITTEN:
        for left in folder.glob(pattern):
            left.unlink(missing_ok=True)
    return folder


def _read(path: Path) -> dict[str, Any]:
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); choose another run.output") from None
    try:
        # Keys that the version which wrote it did not know yet: the run went on with what are their defaults.
        return config_from(written, str(path)).to_dict()
    except ConfigError:
        return written  # of a newer version, or changed by hand: the difference will be named


def _first_difference(old: dict[str, Any], new: dict[str, Any]) -> str | None:
    for table in sorted((old.keys() | new.keys()) - set(FREE_TABLES)):
        before, after = _flat(old.get(table, {})), _flat(new.get(table, {}))
        for key in sorted(before.keys() | after.keys()):
            if (table, key) in FREE_KEYS | FREE_DATA_KEYS:
                continue
            if (table, key) in ADDABLE and before.get(key) is None:
                continue
            if before.get(key) != after.get(key):
                return f"{table}.{key} is {before.get(key)!r} there, {after.get(key)!r} here"
    return None


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    """Keys of inner tables as ``inner.key``, so that the one that differs is named."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, dict) else {key: value}
    return flat
