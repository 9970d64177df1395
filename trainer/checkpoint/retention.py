"""Which checkpoints stay: the newest ones and the most accurate ones."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainer.checkpoint.description import Score
from trainer.checkpoint.draft import remove, remove_damaged
from trainer.checkpoint.folders import BEST, FOLDER, best_checkpoint, complete_checkpoints, read_scores, step_of


@dataclass(frozen=True)
class Retention:
    """newest: how many of the newest stay. best: how many of the most accurate on ``pairs``."""

    newest: int
    best: int = 0
    pairs: str | None = None

    def is_kept(self, score: Score, others: Sequence[Score]) -> bool:
        """Whether a checkpoint with this score is among the best, beside those that are there."""
        as_good = [other for other in others if other.pairs == self.pairs and other.accuracy >= score.accuracy]
        return score.pairs == self.pairs and len(as_good) < self.best

    def obsolete(self, steps: Sequence[int], scores: Mapping[int, Score], *, now: int) -> list[int]:
        """Steps, of those given in order, whose checkpoints go; ``now``: that of the newest one.

        Later ones are of a future that this run no longer has: it went back behind them.
        """
        here = [step for step in steps if step <= now]
        ranked = sorted(
            (step for step in here if step in scores and scores[step].pairs == self.pairs),
            key=lambda step: (-scores[step].accuracy, step),
        )
        kept = {*here[-self.newest :], *ranked[: self.best]}
        return [step for step in steps if step not in kept]

    def apply(self, run_folder: Path, *, now: int) -> None:
        """Delete what is obsolete, whatever was set aside as damaged, and point ``best`` to the best."""
        folders = {step_of(folder): folder for folder in complete_checkpoints(run_folder)}
        scores = {step_of(folder): score for folder, score in read_scores(folders.values()).items()}
        for step in self.obsolete(list(folders), scores, now=now):
            remove(folders[step])
        remove_damaged(run_folder)
        point_to_best(run_folder)


def point_to_best(run_folder: Path) -> None:
    """Let ``checkpoints/best`` be a link to the best checkpoint, for people and their tools; none without scores.

    The scores themselves say which is best, so a file system without links loses nothing.
    """
    link = run_folder / FOLDER / BEST
    draft = link.with_name(f".{BEST}.tmp")
    best = best_checkpoint(run_folder)
    with suppress(OSError):
        if best is None:
            if link.is_symlink():
                link.unlink()
        elif not link.is_symlink() or link.readlink() != Path(best.name):
            draft.unlink(missing_ok=True)
            draft.symlink_to(best.name)
            draft.replace(link)
