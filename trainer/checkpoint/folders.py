"""Where the checkpoints of a run lie, and which one is meant."""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trainer.checkpoint.description import NAME, Score, read_description
from trainer.errors import ConfigError

FOLDER = "checkpoints"
NEWEST, BEST = "newest", "best"
_NAME = re.compile(r"step_(\d{8,})", re.ASCII)


def folder_name(step: int) -> str:
    """Of the checkpoint of ``step``."""
    return f"step_{step:08d}"


def is_checkpoint_name(name: str) -> bool:
    """Whether a folder of that name holds a checkpoint that is complete."""
    return _NAME.fullmatch(name) is not None


def step_of(folder: Path) -> int:
    """The step that the name of a checkpoint folder says."""
    match = _NAME.fullmatch(folder.name)
    assert match is not None, "one of complete_checkpoints"
    return int(match[1])


def complete_checkpoints(run_folder: Path, *, before: int | None = None) -> list[Path]:
    """The run's complete checkpoints, oldest first, or those of steps before ``before``; drafts and what was set aside
    are not among them.

    The name says that one was complete. Files that are missing since are damage, for whoever reads them to tell.
    """
    found = (path for path in (run_folder / FOLDER).glob("step_*") if is_checkpoint_name(path.name) and path.is_dir())
    named = sorted(found, key=step_of)
    return [folder for folder in named if before is None or step_of(folder) < before]


def read_scores(folders: Iterable[Path]) -> dict[Path, Score]:
    """The score of each checkpoint that has one and whose description can be read."""
    scores = {}
    for folder in folders:
        with suppress(ConfigError):
            if (score := read_description(folder).score) is not None:
                scores[folder] = score
    return scores


def best_checkpoint(run_folder: Path) -> Path | None:
    """The most accurate checkpoint on the pairs that the newest score is of; the earlier one of two alike."""
    scores = read_scores(complete_checkpoints(run_folder))
    if not scores:
        return None
    pairs = list(scores.values())[-1].pairs
    comparable = [folder for folder, score in scores.items() if score.pairs == pairs]
    return max(comparable, key=lambda folder: (scores[folder].accuracy, -step_of(folder)))


def find_checkpoint(path: Path, which: str | None = None) -> Path:
    """The checkpoint folder meant by ``path``, itself one or a run folder, and ``which``: newest (None), best, a step.

    Raises ConfigError when there is none.
    """
    torn = is_checkpoint_name(path.name) and path.is_dir() and not (path / FOLDER).exists()  # else a run of that name
    if (path / NAME).exists() or torn:
        if which is not None:
            raise ConfigError(f"{path} is one checkpoint: name its run folder to choose among several")
        return path
    if not path.is_dir():
        raise ConfigError(f"{path}: no such run folder or checkpoint folder")
    complete = complete_checkpoints(path)
    if not complete:
        raise ConfigError(f"{path}: holds no complete checkpoint; train first: pfc train RUN.toml")
    if which in (None, NEWEST):
        return complete[-1]
    if which == BEST:
        best = best_checkpoint(path)
        if best is None:
            raise ConfigError(f"{path}: none of its checkpoints was verified; set evaluation.pairs, or take another")
        return best
    found = [folder for folder in complete if str(which).isdecimal() and step_of(folder) == int(str(which))]
    if not found:
        steps = ", ".join(str(step_of(folder)) for folder in complete)
        raise ConfigError(f"{path}: no checkpoint '{which}': newest, best, or one of the steps {steps}")
    return found[0]
