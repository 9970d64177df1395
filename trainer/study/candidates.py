"""Settings with which each loss may come to the study: as many candidates for each, or it is not fair."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError

LOSSES = ("sface", "arcface", "cosface", "softmax")
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "sface": {"loss": "sface"},  # a and b from the run's [head], which has the paper's for its data set
    "arcface": {"loss": "arcface", "margin": 0.5},
    "cosface": {"loss": "cosface", "margin": 0.35},
    # Normalised softmax: the combined margin without any margin.
    "softmax": {"loss": "combined", "m1": 1.0, "m2": 0.0, "m3": 0.0},
}
"""[head] of each loss as its paper has it."""

OF_EVERY_LOSS = ("scale", "tolerance", "sample_rate", "center_dtype", "center_memory")
OF_SFACE = ("slope", "a", "b")
MAY_CHANGE = ("head", "optimizer")
Candidate = dict[str, dict[str, Any]]


def read_candidates(path: Path | None, losses: Sequence[str]) -> dict[str, list[Candidate]]:
    """Loss -> its candidates, each a few keys of [head] and [optimizer] over the run's; one, empty, without a file.

        [[sface]]
        optimizer.lr = 0.05
        head.a = 0.85

    Raises ConfigError for a file that is none, unknown losses or tables, and losses with unequal numbers.
    """
    if path is None:
        return {loss: [{}] for loss in losses}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"--candidates {path}: cannot be read as TOML ({error})") from None
    unknown = sorted(found.keys() - set(LOSSES))
    if unknown:
        raise ConfigError(f"--candidates {path}: '{unknown[0]}' is none of {', '.join(LOSSES)}")
    for loss, entries in found.items():
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ConfigError(f"--candidates {path}: write '{loss}' as [[{loss}]], once for each candidate")
        for entry in entries:
            for table, values in entry.items():
                if table not in MAY_CHANGE or not isinstance(values, dict) or "loss" in values:
                    raise ConfigError(
                        f"--candidates {path}: '{table}' of '{loss}': a candidate gives keys of head (not its loss) "
                        "and optimizer, such as head.margin = 0.3"
                    )
    counts = {loss: len(found.get(loss, [])) for loss in losses}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        told = ", ".join(f"{loss} {count}" for loss, count in counts.items())
        raise ConfigError(f"--candidates {path}: {told}: give every loss the same number, at least one")
    return {loss: found[loss] for loss in losses}


def settings(loss: str, candidate: Candidate, base: Mapping[str, Any]) -> dict[str, Any]:
    """The tables head and optimizer of a run: ``base`` is the run's configuration as plain values."""
    head = base.get("head", {})
    kept = {key: head[key] for key in (*OF_EVERY_LOSS, *(OF_SFACE if loss == "sface" else ())) if key in head}
    return {
        "head": {**kept, **PUBLISHED[loss], **candidate.get("head", {})},
        "optimizer": {**base.get("optimizer", {}), **candidate.get("optimizer", {})},
    }


def described(candidate: Candidate) -> str:
    """``head.margin = 0.3, optimizer.lr = 0.1``, or that nothing was changed."""
    parts = [f"{table}.{key} = {value}" for table, values in candidate.items() for key, value in values.items()]
    return ", ".join(parts) or "as published"
